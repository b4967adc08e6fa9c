from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbackd_openrtc.manifest import ManifestReader, ManifestRefused, canonical_bytes
from tests.conftest import Signer

NOW = datetime.now(UTC)


def reader(signer: Signer) -> ManifestReader:
    # As a key file holds it.
    return ManifestReader(fleet="voice", public_key=f"{signer.public_key}\n")


def a_signed_manifest_is_read(signer: Signer) -> None:
    answer = signer.manifest(serial=7, denied=["v2", "vü"], last_good="v1")
    manifest = reader(signer).read(answer, now=NOW)
    assert manifest.serial == 7
    assert manifest.denies("v2")
    assert manifest.denies("vü")
    assert not manifest.denies("v1")


def while_a_key_is_rotated_both_are_believed() -> None:
    old, new, stranger = Signer(), Signer(), Signer()
    both = ManifestReader(fleet="voice", public_key=f"{old.public_key}\n{new.public_key}\n")
    assert both.read(old.manifest(serial=7), now=NOW).serial == 7
    assert both.read(new.manifest(serial=8), now=NOW).serial == 8
    with pytest.raises(ManifestRefused, match="not by the pinned key"):
        both.read(stranger.manifest(serial=9), now=NOW)
    with pytest.raises(ValueError, match="no public key"):
        ManifestReader(fleet="voice", public_key="\n")


def a_denied_version_drains_only_when_the_manifest_says_so(signer: Signer) -> None:
    answer = signer.manifest(denied=["v2", "v3"], draining=["v3"])
    manifest = reader(signer).read(answer, now=NOW)
    assert manifest.denies("v2")
    assert not manifest.drains("v2")
    assert manifest.denies("v3")
    assert manifest.drains("v3")


def a_manifest_that_does_not_speak_of_draining_drains_nobody() -> None:
    signer = Signer(leave_out="draining")
    manifest = reader(signer).read(signer.manifest(denied=["v2"]), now=NOW)
    assert manifest.denies("v2")
    assert not manifest.drains("v2")


def the_canonical_form_is_that_of_rfc_8785() -> None:
    value = {"b": [1, None], "a": 'é"\\\n\u0001\u007f', "c": "€"}
    want = '{"a":"é\\"\\\\\\n\\u0001\u007f","b":[1,null],"c":"€"}'
    assert canonical_bytes(value) == want.encode()


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("another fleet", {"fleet": "chat"}, "fleet 'chat'"),
        ("expired", {"expires_at": (NOW - timedelta(seconds=1)).isoformat()}, "expired"),
        ("no offset", {"expires_at": "2999-01-01T00:00:00"}, "no offset"),
        ("not a time", {"expires_at": "soon"}, "RFC 3339"),
        ("a serial that is a boolean", {"serial": True}, "serial"),
        ("a serial with a fraction", {"serial": 1.5}, "serial"),
        ("a serial below 0", {"serial": -1}, "serial"),
        ("denied is a string", {"denied": "v2"}, "denied"),
        ("draining is null", {"draining": None}, "draining"),
        ("it drains what it admits", {"draining": ["v1"]}, "not denied"),
        ("admitted holds a number", {"admitted": [1]}, "admitted"),
    ],
)
def a_manifest_that_is_wrong_is_refused(
    signer: Signer, name: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ManifestRefused, match=says):
        reader(signer).read(signer.manifest(**changes), now=NOW)


def an_older_serial_is_refused_and_the_same_one_is_not(signer: Signer) -> None:
    ours = reader(signer)
    ours.read(signer.manifest(serial=5), now=NOW)
    ours.read(signer.manifest(serial=5), now=NOW)
    with pytest.raises(ManifestRefused, match="older than 5"):
        ours.read(signer.manifest(serial=4), now=NOW)
    assert ours.serial == 5


def a_refused_manifest_does_not_move_the_serial(signer: Signer) -> None:
    ours = reader(signer)
    with pytest.raises(ManifestRefused):
        ours.read(signer.manifest(serial=9, fleet="chat"), now=NOW)
    assert ours.serial is None


def only_the_pinned_key_counts(signer: Signer) -> None:
    ours = reader(signer)
    with pytest.raises(ManifestRefused, match="pinned"):
        ours.read(Signer().manifest(), now=NOW)
    altered = signer.manifest()
    altered["manifest"]["denied"] = ["v1"]
    with pytest.raises(ManifestRefused, match="pinned"):
        ours.read(altered, now=NOW)


@pytest.mark.parametrize("signature", [None, 7, "zz", "", "00" * 64])
def a_signature_that_is_none_is_refused(signer: Signer, signature: Any) -> None:
    with pytest.raises(ManifestRefused):
        reader(signer).read({**signer.manifest(), "signature": signature}, now=NOW)


@pytest.mark.parametrize("answer", [None, [], {}, {"manifest": None}, "x"])
def an_answer_without_a_manifest_is_refused(signer: Signer, answer: Any) -> None:
    with pytest.raises(ManifestRefused, match="no manifest"):
        reader(signer).read(answer, now=NOW)


def a_key_that_is_none_is_an_error() -> None:
    for key in ("", "xyz", "00" * 31):
        with pytest.raises(ValueError, match="64 hex digits"):
            ManifestReader(fleet="voice", public_key=key)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_fields = st.dictionaries(
    st.sampled_from(
        ["fleet", "serial", "admitted", "denied", "draining", "last_good", "expires_at"]
    )
    | st.text(),
    _json,
    max_size=4,
)


@settings(deadline=None, max_examples=50)
@given(answer=_json | st.fixed_dictionaries({"manifest": _fields, "signature": _json}))
def no_answer_is_a_manifest_without_a_signature(answer: object) -> None:
    with pytest.raises(ManifestRefused):
        reader(Signer()).read(answer, now=NOW)


@settings(deadline=None, max_examples=50)
@given(changes=_fields, raw=st.binary(max_size=80))
def whatever_is_signed_is_a_manifest_or_refused(changes: dict[str, Any], raw: bytes) -> None:
    signer = Signer()
    try:
        answer = signer.manifest(**changes)
    except (ValueError, TypeError):
        # Such a thing cannot be written as JSON, so nobody signs it.
        return
    for text in (json.dumps(answer).encode(), raw):
        try:
            manifest = reader(signer).read(json.loads(text), now=NOW)
        except (ManifestRefused, ValueError):
            continue
        assert manifest.fleet == "voice"
        assert manifest.expires_at > NOW
        assert all(isinstance(version, str) for version in manifest.denied | manifest.draining)
