"""A client of flow-credentials, over the code that `generate.sh` makes of its protos."""

import os
import sys

sys.path.insert(0, os.environ.get("FLOW_CREDENTIALS_GENERATED", os.path.join(os.path.dirname(os.path.abspath(__file__)), "generated")))

import grpc
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2

from flow.credentials.v1 import credential_service_pb2 as api
from flow.credentials.v1 import credential_service_pb2_grpc, resources_pb2

# Calls that do no harm a second time are tried again where the service could not be reached.
_RETRIES = """{"methodConfig": [{
  "name": [
    {"service": "flow.credentials.v1.CredentialService", "method": "GetCredential"},
    {"service": "flow.credentials.v1.CredentialService", "method": "ListCredentials"},
    {"service": "flow.credentials.v1.CredentialService", "method": "ResolveCredential"}],
  "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
}]}"""


class CredentialError(Exception):
    """A call that was refused or failed. `reason` is a stable word, such as CREDENTIAL_NOT_FOUND; nothing in it is secret."""

    def __init__(self, code, reason, message, request_id, fields):
        super().__init__(f"{message} ({reason or code}, request {request_id})")
        self.code, self.reason, self.request_id, self.fields = code, reason, request_id, fields


def _error(failure):
    """What a status says: the reason and the fields at fault, from its details."""
    reason, fields = None, {}
    for name, value in failure.trailing_metadata() or ():
        if name != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
                reason = info.reason if info.domain == "credentials.flow" else None
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                request = error_details_pb2.BadRequest()
                detail.Unpack(request)
                fields = {violation.field: violation.description for violation in request.field_violations}
    ids = dict(failure.initial_metadata() or ())
    return CredentialError(failure.code().name, reason, failure.details(), ids.get("x-request-id", "unknown"), fields)


class Secret:
    """A resolved secret. It does not print; `value` is the message of its provider and type."""

    def __init__(self, response):
        self.provider = resources_pb2.Provider.Name(response.provider).replace("PROVIDER_", "").lower()
        self.kind = response.WhichOneof("credentials")
        self.version = response.secret_version
        self.value = getattr(response, self.kind)

    def __repr__(self):
        return f"<Secret {self.kind} of {self.provider}, version {self.version}>"


class CredentialClient:
    """CredentialService. Every call takes `flow_id` and `run_id`, which go into the audit record, and has a deadline."""

    def __init__(self, target, token, ca_file=None, plaintext=False, timeout=15.0):
        """`plaintext` is for a service on this machine; otherwise TLS, by the authority in `ca_file` or the system's."""
        options = [("grpc.service_config", _RETRIES), ("grpc.keepalive_time_ms", 60_000)]
        if plaintext:
            self._channel = grpc.insecure_channel(target, options)
        else:
            with open(ca_file, "rb") if ca_file else open(os.devnull, "rb") as file:
                self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read() or None), options)
        self._stub = credential_service_pb2_grpc.CredentialServiceStub(self._channel)
        self._token, self._timeout = token, timeout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()

    def _call(self, method, request, flow_id=None, run_id=None, idempotency_key=None):
        pairs = [("authorization", f"Bearer {self._token}"), ("x-flow-id", flow_id), ("x-run-id", run_id), ("idempotency-key", idempotency_key)]
        try:
            return method(request, timeout=self._timeout, metadata=[pair for pair in pairs if pair[1] is not None])
        except grpc.RpcError as failure:
            raise _error(failure) from None

    def create(self, provider, credential_type, credentials, **about):
        """Stores a secret, a dict of the keys that the provider takes; gives its description. Users only."""
        secret = Struct()
        secret.update(credentials)
        request = api.CreateCredentialRequest(
            provider=resources_pb2.Provider.Value(f"PROVIDER_{provider.upper()}"),
            credential_type=resources_pb2.CredentialType.Value(f"CREDENTIAL_TYPE_{credential_type.upper()}"),
            credentials=secret,
        )
        return self._call(self._stub.CreateCredential, request, **about).credential

    def list(self, **about):
        """Descriptions of the credentials that the caller may see, newest first."""
        return list(self._call(self._stub.ListCredentials, api.ListCredentialsRequest(), **about).credentials)

    def resolve(self, credential_id, **about):
        """The secret of a credential. Service accounts only."""
        return Secret(self._call(self._stub.ResolveCredential, api.ResolveCredentialRequest(credential_id=credential_id), **about))

    def delete(self, credential_id, **about):
        """Deletes a credential, for everybody and at once."""
        self._call(self._stub.DeleteCredential, api.DeleteCredentialRequest(credential_id=credential_id), **about)
