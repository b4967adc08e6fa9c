"""The signed statement of which versions a fleet admits and denies.

Invariant: a `Manifest` exists only if its signature, fleet, serial and lifetime
were checked; `ManifestReader.read` is the one way to get one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_INTEGER_MAX = 2**53 - 1


class ManifestRefused(ValueError):
    """A manifest this worker does not act on; the text says why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the fleet's controller admits and denies.

    A version is denied before the good one can carry its load; its running
    workers leave only once it is `draining`, too.
    """

    fleet: str
    serial: int
    admitted: frozenset[str]
    denied: frozenset[str]
    draining: frozenset[str]
    last_good: str | None
    expires_at: datetime

    def denies(self, version: str) -> bool:
        """Whether a worker of `version` may not start."""
        return version in self.denied

    def drains(self, version: str) -> bool:
        """Whether a running worker of `version` has to drain now."""
        return version in self.draining


def canonical_bytes(value: object) -> bytes:
    """RFC 8785 for what a manifest holds: strings, integers, lists, objects, null.

    Keys are ASCII here, so sorting by code point is sorting by UTF-16 unit.
    """
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def parse_public_keys(text: str) -> tuple[Ed25519PublicKey, ...]:
    """Read hex Ed25519 public keys, one a line, as their file holds them.

    Two are there while a key is rotated: the one in force and the next.
    """
    try:
        keys = tuple(
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(line)) for line in text.split()
        )
    except ValueError as error:
        raise ValueError("the public key is not 64 hex digits of an Ed25519 key") from error
    if not keys:
        raise ValueError("no public key: expected 64 hex digits of an Ed25519 key")
    return keys


class ManifestReader:
    """Checks answers against the pinned keys and remembers the newest serial."""

    def __init__(self, *, fleet: str, public_key: str) -> None:
        self._fleet = fleet
        self._keys = parse_public_keys(public_key)
        self._serial = -1

    @property
    def serial(self) -> int | None:
        """The newest serial read, or None before the first."""
        return self._serial if self._serial >= 0 else None

    def read(self, answer: object, *, now: datetime) -> Manifest:
        """Check `{"manifest", "signature"}` and return the manifest, or raise `ManifestRefused`.

        The answer's own `key` is not looked at: only the pinned ones count.
        """
        if not isinstance(answer, Mapping) or not isinstance(answer.get("manifest"), Mapping):
            raise ManifestRefused("the answer holds no manifest")
        body: Mapping[str, Any] = answer["manifest"]
        self._check_signature(body, answer.get("signature"))
        manifest = _parse(body)
        if manifest.fleet != self._fleet:
            raise ManifestRefused(f"it is for fleet {manifest.fleet!r}, not {self._fleet!r}")
        if manifest.expires_at <= now:
            raise ManifestRefused(f"it expired at {manifest.expires_at.isoformat()}")
        if manifest.serial < self._serial:
            raise ManifestRefused(f"serial {manifest.serial} is older than {self._serial}")
        self._serial = manifest.serial
        return manifest

    def _check_signature(self, body: Mapping[str, Any], signature: object) -> None:
        if not isinstance(signature, str):
            raise ManifestRefused("it is not signed")
        try:
            signed, bytes_ = bytes.fromhex(signature), canonical_bytes(dict(body))
        except ValueError as error:
            raise ManifestRefused("its signature is not by the pinned key") from error
        if not any(_is_by(key, signed, bytes_) for key in self._keys):
            raise ManifestRefused("its signature is not by the pinned key")


def _is_by(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _parse(body: Mapping[str, Any]) -> Manifest:
    fleet, serial, last_good = body.get("fleet"), body.get("serial"), body.get("last_good")
    if not isinstance(fleet, str):
        raise ManifestRefused("fleet is not a string")
    # `True` is an int to Python, and 1.0 is not one to JSON's readers elsewhere.
    if type(serial) is not int or not 0 <= serial <= _INTEGER_MAX:
        raise ManifestRefused("serial is not an integer between 0 and 2^53-1")
    if last_good is not None and not isinstance(last_good, str):
        raise ManifestRefused("last_good is neither a string nor null")
    denied = _versions(body, "denied")
    draining = _versions(body, "draining") if "draining" in body else frozenset()
    if not draining <= denied:
        raise ManifestRefused("draining holds a version that is not denied")
    return Manifest(
        fleet=fleet,
        serial=serial,
        admitted=_versions(body, "admitted"),
        denied=denied,
        draining=draining,
        last_good=last_good,
        expires_at=_time(body, "expires_at"),
    )


def _versions(body: Mapping[str, Any], name: str) -> frozenset[str]:
    versions = body.get(name)
    if not isinstance(versions, list) or not all(isinstance(v, str) for v in versions):
        raise ManifestRefused(f"{name} is not a list of strings")
    return frozenset(versions)


def _time(body: Mapping[str, Any], name: str) -> datetime:
    try:
        time = datetime.fromisoformat(body[name])
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestRefused(f"{name} is not an RFC 3339 time") from error
    if time.tzinfo is None:
        raise ManifestRefused(f"{name} has no offset from UTC")
    return time.astimezone(UTC)
