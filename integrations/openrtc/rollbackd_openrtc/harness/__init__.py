"""A worker process with a real `AgentPool` and no LiveKit server, and calls to play through it.

What a call says and hears is left out; routing, sessions, observers, audit and
drain are OpenRTC's own. Everything listens on the loopback address only.
"""
