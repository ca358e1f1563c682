"""A flow executor in small: lists credentials, stores one, or resolves one and says where it would log in."""

import argparse
import json
import os
import sys

from flow_credentials import CredentialClient, CredentialError, resources_pb2

TOKEN = "FLOW_CREDENTIALS_TOKEN"


def described(credential):
    """A credential as one line of JSON; there is no secret in it."""
    provider = resources_pb2.Provider.Name(credential.provider).replace("PROVIDER_", "").lower()
    return json.dumps({"id": credential.id, "provider": provider})


def destination(secret):
    """Where a secret logs in, without what it logs in with."""
    if secret.kind in ("sftp_password", "sftp_key"):
        return f"sftp://{secret.value.username}@{secret.value.host}:{secret.value.port}"
    if secret.kind == "postgresql":
        return f"postgresql://{secret.value.username}@{secret.value.host}:{secret.value.port}/{secret.value.database}"
    return secret.provider


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"The token, a JWT or an API key, is taken from {TOKEN}.")
    parser.add_argument("--target", default="127.0.0.1:50051", help="host:port of the gRPC listener")
    parser.add_argument("--ca-file", help="certificate authority of the service, PEM; a loopback target without one is spoken to in plaintext")
    parser.add_argument("--flow-id")
    parser.add_argument("--run-id")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every credential that the caller may see")
    create = commands.add_parser("create", help="store a secret, read from standard input as a JSON object")
    create.add_argument("--provider", required=True)
    create.add_argument("--type", required=True)
    create.add_argument("--idempotency-key")
    for name, told in (("resolve", "resolve a credential"), ("delete", "delete a credential")):
        commands.add_parser(name, help=told).add_argument("credential")
    options = parser.parse_args()

    token = os.environ.get(TOKEN)
    if not token:
        parser.error(f"{TOKEN} is not set")
    local = options.target.rsplit(":", 1)[0] in ("127.0.0.1", "localhost", "[::1]")
    about = {"flow_id": options.flow_id, "run_id": options.run_id}
    try:
        with CredentialClient(options.target, token, options.ca_file, plaintext=local and options.ca_file is None) as client:
            if options.command == "list":
                for credential in client.list(**about):
                    print(described(credential))
            elif options.command == "create":
                print(described(client.create(options.provider, options.type, json.load(sys.stdin), idempotency_key=options.idempotency_key, **about)))
            elif options.command == "delete":
                client.delete(options.credential, **about)
            else:
                secret = client.resolve(options.credential, **about)
                print(f"{secret} for {destination(secret)}")
    except CredentialError as error:
        print(error, file=sys.stderr)
        for field, fault in error.fields.items():
            print(f"  {field}: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
