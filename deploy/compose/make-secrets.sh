#!/bin/sh
# Makes what compose.yaml needs, once: passwords, keys and certificates in deploy/compose/secrets/, readable by you alone.
# What is there already stays. `issuer.key` is the private key by which the platform's tokens are signed.
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
secrets=${1:-$here/secrets}
mkdir -p "$secrets"
cd "$secrets"

random() { head -c "$1" /dev/urandom | base64 | tr -d '\n=' | tr '+/' '-_'; }

[ -e db-superuser ] || random 24 >db-superuser
if [ ! -e roles.sql ]; then
  app=$(random 24) owner=$(random 24)
  printf 'postgresql://credentials_app:%s@db/flow_credentials' "$app" >database-url
  printf 'postgresql://credentials_owner:%s@db/flow_credentials' "$owner" >migration-url
  cat >roles.sql <<SQL
create role credentials_owner login password '$owner' nosuperuser nocreatedb nocreaterole nobypassrls;
create role credentials_app login password '$app' nosuperuser nocreatedb nocreaterole nobypassrls;
create database flow_credentials owner credentials_owner;
revoke temporary on database flow_credentials from public;
SQL
fi
[ -e master-keys ] || printf 'first:%s' "$(head -c 32 /dev/urandom | base64)" >master-keys
[ -e audit.pem ] || openssl genpkey -algorithm ed25519 -out audit.pem
[ -e issuer.key ] || { openssl genpkey -algorithm ed25519 -out issuer.key && openssl pkey -in issuer.key -pubout -out issuer.pem; }
if [ ! -e ca.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 365 -subj '/CN=flow-credentials' 2>/dev/null
  for name in db tls; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key" -out "$name.csr" -subj "/CN=$name" 2>/dev/null
    printf 'subjectAltName=DNS:localhost,DNS:db,DNS:service,IP:127.0.0.1\n' >extensions
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -out "$name.pem" -days 365 -extfile extensions 2>/dev/null
    rm "$name.csr"
  done
  rm -f extensions ca.srl
fi

# The container reads them as the user who owns them, and that is never root.
if [ "$(id -u)" -eq 0 ]; then
  chown -R 65532:65532 .
else
  [ "$secrets" != "$here/secrets" ] || printf 'FLOW_USER=%s:%s\n' "$(id -u)" "$(id -g)" >"$here/.env"
fi
echo "secrets are in $secrets"
