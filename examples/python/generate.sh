#!/bin/sh
# Makes the Python code of the protos in examples/python/generated/, which git does not keep. Needs `npm ci` for Google's own protos, and
# either Debian's packages (apt-get install protobuf-compiler protobuf-compiler-grpc python3-grpcio python3-protobuf)
# or pip's (python3 -m pip install grpcio-tools).
set -eu
cd "$(dirname "$0")/../.."
out=${1:-examples/python/generated}
google=node_modules/google-gax/build/protos
rm -rf "$out"
mkdir -p "$out"
set -- -I proto -I "$google" --python_out="$out" \
  flow/credentials/v1/resources.proto flow/credentials/v1/credential_service.proto flow/credentials/v1/authorization_service.proto \
  flow/credentials/v1/service_account_service.proto flow/credentials/v1/admin_service.proto \
  google/api/annotations.proto google/api/http.proto google/rpc/status.proto google/rpc/error_details.proto
if command -v protoc >/dev/null && plugin=$(command -v grpc_python_plugin); then
  protoc --plugin=protoc-gen-grpc="$plugin" --grpc_out="$out" "$@"
else
  python3 -m grpc_tools.protoc --grpc_python_out="$out" "$@"
fi
