import type { Metadata } from "@grpc/grpc-js";
import { ListCredentialsRequest, ResolveCredentialRequest, UpdateCredentialRequest } from "../../gen/flow/credentials/v1/credential_service.ts";
import { CredentialType } from "../../gen/flow/credentials/v1/resources.ts";
import type { HttpLoad } from "./http-load.ts";
import type { GrpcRequest, Load } from "./load.ts";
import type { Measured } from "./process.ts";
import { CREDENTIALS } from "./unary.ts";
import { creationOf, SECRET, type Tenant, type World } from "./world.ts";

/** What is sent in the benchmark: each load of one method, or of several mixed, organizations in turn. */

const RESOLVE = `${CREDENTIALS}ResolveCredential`;
const NEW_CREDENTIAL = creationOf(SECRET);
const LIST = Buffer.from(ListCredentialsRequest.encode({ provider: 0 }).finish());
const resolveOf = (credentialId: string): Buffer => Buffer.from(ResolveCredentialRequest.encode({ credentialId }).finish());

function resolveRequest(world: World): GrpcRequest {
  const { machine, credentialIds } = world.reader();
  return { path: RESOLVE, message: resolveOf(credentialIds[Math.floor(Math.random() * credentialIds.length)] ?? ""), metadata: machine };
}

const createRequest = (world: World): GrpcRequest => ({ path: `${CREDENTIALS}CreateCredential`, message: NEW_CREDENTIAL, metadata: world.writer().user });
const listRequest = (world: World): GrpcRequest => ({ path: `${CREDENTIALS}ListCredentials`, message: LIST, metadata: world.reader().user });

function updateRequest(world: World): GrpcRequest {
  const { user, credentialIds } = world.writer();
  const request = UpdateCredentialRequest.encode({ credentialId: credentialIds[0] ?? "", credentialType: CredentialType.CREDENTIAL_TYPE_USER_PASSWORD, credentials: { ...SECRET }, etag: "" });
  return { path: `${CREDENTIALS}UpdateCredential`, message: Buffer.from(request.finish()), metadata: user };
}

/** The empty call, which carries the same token and the same request as ResolveCredential. */
export const emptyCall = (world: World, server: Measured): Load => ({ name: "empty call", server, next: () => resolveRequest(world) });

/** ResolveCredential of a random credential. */
export const resolveCredential = (world: World, server: Measured): Load => ({ name: "ResolveCredential", server, next: () => resolveRequest(world) });

/** ResolveCredential of an OAuth credential whose token is good. */
export const resolveOAuth = (world: World, server: Measured): Load => ({
  name: "ResolveCredential, OAuth",
  server,
  next() {
    const { machine, oauthId } = world.reader();
    return { path: RESOLVE, message: resolveOf(oauthId), metadata: machine };
  },
});

/** CreateCredential. */
export const createCredential = (world: World, server: Measured): Load => ({ name: "CreateCredential", server, next: () => createRequest(world) });

/** ListCredentials of organizations with 11 credentials. */
export const listCredentials = (world: World, server: Measured): Load => ({ name: "ListCredentials", server, next: () => listRequest(world) });

/** Of twenty calls eighteen resolve, one lists, and one creates or updates in turn. */
export function mixedCalls(world: World, server: Measured): Load {
  let turn = 0;
  const next = () => {
    turn += 1;
    if (turn % 20 === 7) return listRequest(world);
    if (turn % 20 === 17) return turn % 40 === 17 ? createRequest(world) : updateRequest(world);
    return resolveRequest(world);
  };
  return { name: "mixed (90 % resolve)", server, next };
}

const CREATE_BODY = JSON.stringify({ provider: "sftp", credential_type: "user_password", credentials: SECRET });
const authorization = (metadata: Metadata): Record<string, string> => ({ authorization: String(metadata.get("authorization")[0]) });

function readRequest({ user, credentialIds }: Tenant): ReturnType<HttpLoad["nextHttp"]> {
  return { method: "GET", path: `/integrations/credentials/${credentialIds[0]}`, headers: authorization(user) };
}

function postRequest({ user }: Tenant): ReturnType<HttpLoad["nextHttp"]> {
  return { method: "POST", path: "/integrations/credentials", headers: authorization(user), body: CREATE_BODY };
}

/** Describing one credential over REST. */
export const restRead = (world: World, server: Measured): HttpLoad => ({ name: "REST read", server, nextHttp: () => readRequest(world.reader()) });

/** Creating a credential over REST. */
export const restCreate = (world: World, server: Measured): HttpLoad => ({ name: "REST create", server, nextHttp: () => postRequest(world.writer()) });

/** The same requests, to a server that does nothing. */
export const httpEcho = (world: World, server: Measured, method: "GET" | "POST"): HttpLoad => ({
  name: `node:http echo, ${method}`,
  server,
  nextHttp: () => (method === "GET" ? readRequest(world.reader()) : postRequest(world.writer())),
});
