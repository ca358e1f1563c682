#!/usr/bin/python3
"""Opens sealed vectors with another implementation of the format (Debian: apt-get install python3-cryptography).

Written from the description of the format alone. Usage: read_vectors.py [file]; exits non-zero at the first difference.
"""
import base64
import json
import pathlib
import struct
import sys
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Refused(Exception):
    """The bytes are not what they should be."""


def require(condition, what):
    if not condition:
        raise Refused(what)


def aad(purpose, organization_id, credential_id, provider, kind, version, header):
    fields = [
        b"flow-credentials/v1",
        purpose,
        uuid.UUID(organization_id).bytes,
        credential_id.bytes,
        provider.encode(),
        kind.encode(),
        struct.pack(">Q", version),
        header,
    ]
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def derive(key, label):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=b"", info=b"flow-credentials/v1/" + label).derive(key)


def gcm_open(key, body, data):
    require(len(body) >= 12 + 16, "too short")
    try:
        return AESGCM(key).decrypt(body[:12], body[12:], data)
    except InvalidTag:
        raise Refused("not authentic") from None


def unwrap(wrapped, master_keys, organization_id, version):
    require(len(wrapped) >= 4 and wrapped[:3] == b"\xc4\x01\x01", "not a wrapped key")
    end = 4 + wrapped[3]
    require(len(wrapped) == end + 12 + 32 + 16, "wrong length of a wrapped key")
    key_id = wrapped[4:end].decode("latin-1")
    require(key_id in master_keys, "unknown master key")
    data = aad(b"organization-key", organization_id, uuid.UUID(int=0), "", "", version, wrapped[:end])
    return key_id, gcm_open(master_keys[key_id], wrapped[end:], data)


def open_secret(sealed, keys, place):
    require(len(sealed) >= 7 + 12 + 16 and sealed[:3] == b"\xc5\x01\x01", "not a sealed secret")
    (version,) = struct.unpack(">I", sealed[3:7])
    organization = uuid.UUID(place["organization_id"])
    require((organization, version) in keys, "unknown organization key")
    data = aad(
        b"secret",
        place["organization_id"],
        uuid.UUID(place["credential_id"]),
        place["provider"],
        place["type"],
        int(place["secret_version"]),
        sealed[:7],
    )
    plaintext = gcm_open(derive(keys[organization, version], b"sealing-key"), sealed[7:], data)
    schema, length = struct.unpack(">BI", plaintext[:5])
    require(schema == 1, "unknown schema")
    require(len(plaintext) == -(-(5 + length) // 256) * 256, "not padded to the next bucket")
    require(not any(plaintext[5 + length :]), "padding that is not zero")
    return version, plaintext[5 : 5 + length].decode("utf-8")


def count_refusals(data, attempt):
    """Every single flipped bit position (one bit a byte), and every truncation to a sample of lengths, must be refused."""
    altered = [data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :] for i in range(len(data))]
    altered += [data[:length] for length in range(0, len(data), 1 if len(data) < 400 else 97)] + [data + b"\0"]
    for variant in altered:
        try:
            attempt(variant)
        except Refused:
            continue
        raise SystemExit("altered bytes were accepted")
    return len(altered)


def main():
    default = pathlib.Path(__file__).with_name("sealed-v1.json")
    vectors = json.loads(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else default).read_text("utf-8"))
    refusals = 0

    master_keys = {}
    for row in vectors["master_keys"]:
        master_keys[row["id"]] = base64.b64decode(row["key"], validate=True)
        require(derive(master_keys[row["id"]], b"master-key-check") == base64.b64decode(row["check_value"]), "check value")

    keys = {}
    for row in vectors["organization_keys"]:
        place = row["organization_id"], row["version"]
        wrapped = base64.b64decode(row["wrapped"], validate=True)
        key_id, key = unwrap(wrapped, master_keys, *place)
        require(key_id == row["master_key_id"] and key == base64.b64decode(row["key"]), "organization key")
        require(derive(key, b"commitment") == base64.b64decode(row["commitment"]), "commitment")
        require(derive(key, b"fingerprint-key") == base64.b64decode(row["fingerprint_key"]), "fingerprint key")
        keys[uuid.UUID(row["organization_id"]), row["version"]] = key
        refusals += count_refusals(wrapped, lambda data: unwrap(data, master_keys, *place))

    for row in vectors["secrets"]:
        sealed = base64.b64decode(row["sealed"], validate=True)
        version, text = open_secret(sealed, keys, row)
        require(version == row["organization_key_version"] and text == row["json"], row["name"])
        require(json.loads(text) == row["document"], row["name"])
        refusals += count_refusals(sealed, lambda data: open_secret(data, keys, row))

    print(f"{len(keys)} keys and {len(vectors['secrets'])} secrets open, {refusals} altered ones do not")


if __name__ == "__main__":
    try:
        main()
    except Refused as refusal:
        raise SystemExit(f"does not open: {refusal}") from None
