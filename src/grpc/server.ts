import { isIPv6 } from "node:net";
import { logVerbosity, Server, ServerCredentials, type ServiceDefinition, setLogVerbosity } from "@grpc/grpc-js";
import { HealthService } from "../../gen/health/v1/health.ts";
import { ServerReflectionService } from "../../gen/grpc/reflection/v1/reflection.ts";
import { ServerReflectionService as ServerReflectionServiceAlpha } from "../../gen/grpc/reflection/v1alpha/reflection.ts";
import type { Address } from "../config.ts";
import { adminService } from "./admin-service.ts";
import { authorizationService } from "./authorization-service.ts";
import { credentialService } from "./credential-service.ts";
import type { GrpcDeps } from "./deps.ts";
import { createDoor, type Method } from "./door.ts";
import { createHealth } from "./health.ts";
import { createLocal, type Local } from "./local.ts";
import { createReflection } from "./reflection.ts";
import { serviceAccountService } from "./service-account-service.ts";
import type { StreamRpc } from "./stream.ts";
import type { UnaryRpc } from "./unary.ts";

/** How the gRPC service listens, and its limits. */
export interface GrpcOptions {
  readonly listen: Address;
  /** TLS 1.2 or later on `listen`, PEM; with `clientCa` a client certificate from that authority is required. */
  readonly tls?: { readonly certificate: Buffer; readonly key: Buffer; readonly clientCa?: Buffer };
  readonly reflection: boolean;
  /** Deadline of a call that brings none, and the longest one granted, ms. */
  readonly deadlineMs: number;
  /** Largest request message, bytes. */
  readonly maxMessageBytes: number;
  /** Largest header list of a call, bytes as RFC 9113 section 6.5.2 counts them. */
  readonly maxMetadataBytes: number;
  /** Calls at once on one connection. */
  readonly maxConcurrentStreams: number;
  /** Connections at once on one address; 2,048 unless given. */
  readonly maxConnections?: number;
  /** How long a connection may stay open without a call, ms; five minutes unless given. */
  readonly maxIdleMs?: number;
  /** Time between pings on a quiet connection, ms. */
  readonly keepaliveMs: number;
  /** Age at which a connection is asked to go, ms. */
  readonly maxConnectionAgeMs: number;
  /** How long calls in flight may take after `stop`, ms. */
  readonly shutdownGraceMs: number;
}

/** A gRPC service that listens. */
export interface GrpcService {
  /** Where it listens; the port is the one that was bound. */
  readonly address: Address;
  /** The way to its RPCs for the REST role of the same process. */
  readonly local: Local;
  /** Stops it: not serving, new calls UNAVAILABLE, calls in flight finish or are cut after the grace time. */
  stop(): Promise<void>;
  /** Shows another certificate from now on; see `Door.renewCertificate`. */
  renewCertificate(tls: NonNullable<GrpcOptions["tls"]>): void;
  /** Connections that are open now. */
  readonly connections: number;
  /** What the health service tells. */
  setServing(serving: boolean): void;
}

/** An address that cannot be listened on. */
export class ListenError extends Error {
  override readonly name = "ListenError";
  /** The system's code where it gave one, for example `EADDRINUSE`. */
  readonly code: string;

  constructor(address: string, code: string) {
    super(`gRPC cannot listen on ${address} (${code})`);
    this.code = code;
  }
}

/** How long a connection may take to answer a ping, ms. */
const KEEPALIVE_TIMEOUT_MS = 20_000;

const CREDENTIAL_SERVICE = "flow.credentials.v1.CredentialService";
const SERVICE_ACCOUNT_SERVICE = "flow.credentials.v1.ServiceAccountService";
const ADMIN_SERVICE = "flow.credentials.v1.AdminService";
const AUTHORIZATION_SERVICE = "flow.credentials.v1.AuthorizationService";
const HEALTH = "grpc.health.v1.Health";
const REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

const printed = ({ host, port }: Address): string => `${isIPv6(host) ? `[${host}]` : host}:${port}`;

function bind(server: Server, target: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(target, credentials, (error, port) => {
      if (error) reject(new ListenError(target, /\bE[A-Z]{3,}\b/.exec(error.message)?.[0] ?? "unknown"));
      else resolve(port);
    });
  });
}

function credentialsOf({ tls }: GrpcOptions): ServerCredentials {
  if (!tls) return ServerCredentials.createInsecure();
  return ServerCredentials.createSsl(tls.clientCa ?? null, [{ private_key: tls.key, cert_chain: tls.certificate }], tls.clientCa !== undefined);
}

/** Methods as the door knows them, by their path. */
function methodsOf(ours: readonly (UnaryRpc | StreamRpc)[], open: readonly ServiceDefinition[]): Map<string, Method> {
  const methods = new Map<string, Method>();
  for (const rpc of ours) {
    const needsIdentity = !rpc.open;
    if ("begin" in rpc) methods.set(rpc.path, { needsIdentity, requestStream: false, rpc });
    else methods.set(rpc.definition.path, { needsIdentity, requestStream: rpc.definition.requestStream });
  }
  for (const { path, requestStream } of open.flatMap((definition) => Object.values(definition))) methods.set(path, { needsIdentity: false, requestStream });
  return methods;
}

/** Starts the gRPC service. Throws ListenError where an address cannot be had. */
export async function serveGrpc(deps: GrpcDeps, options: GrpcOptions): Promise<GrpcService> {
  // The library's own messages quote header values.
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server({
    "grpc.max_receive_message_length": options.maxMessageBytes,
    "grpc.max_concurrent_streams": options.maxConcurrentStreams,
    "grpc.keepalive_time_ms": options.keepaliveMs,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
    "grpc.max_connection_age_ms": options.maxConnectionAgeMs,
    "grpc.max_connection_age_grace_ms": options.deadlineMs,
    "grpc.enable_channelz": 0,
  });
  const rpcDeps = { ...deps, deadlineMs: options.deadlineMs, clientCertificates: options.tls?.clientCa !== undefined };
  const ours = [credentialService, serviceAccountService, adminService, authorizationService].flatMap((service): (UnaryRpc | StreamRpc)[] => Object.values(service(rpcDeps, deps.vault)));
  for (const rpc of ours) {
    if (!("begin" in rpc)) server.addService({ [rpc.definition.path]: rpc.definition }, { [rpc.definition.path]: rpc.handler });
  }
  const open: ServiceDefinition[] = [HealthService];
  const health = createHealth([CREDENTIAL_SERVICE, SERVICE_ACCOUNT_SERVICE, ADMIN_SERVICE, AUTHORIZATION_SERVICE]);
  server.addService(HealthService, health.implementation);
  const reflection = options.reflection ? createReflection([CREDENTIAL_SERVICE, SERVICE_ACCOUNT_SERVICE, ADMIN_SERVICE, AUTHORIZATION_SERVICE, HEALTH, ...REFLECTION]) : undefined;
  if (reflection) {
    server.addService(ServerReflectionService, reflection.implementation);
    server.addService(ServerReflectionServiceAlpha, reflection.implementation);
    open.push(ServerReflectionService, ServerReflectionServiceAlpha);
  }
  const methods = methodsOf(ours, open);
  const door = createDoor(deps, { ...options, methods });
  let port: number;
  try {
    port = await bind(server, printed(options.listen), credentialsOf(options));
    door.guard(server);
  } catch (error) {
    server.forceShutdown();
    throw error;
  }
  health.setServing(true);
  const local = createLocal(ours.filter((rpc) => "begin" in rpc), {
    maxMetadataBytes: options.maxMetadataBytes,
    maxMessageBytes: options.maxMessageBytes,
    maxConcurrent: options.maxConcurrentStreams,
    deadlineMs: options.deadlineMs,
  });

  const stop = async () => {
    health.setServing(false);
    door.shut();
    health.close();
    reflection?.close();
    const cut = () => {
      door.cut();
      local.cut();
    };
    const grace = setTimeout(cut, options.shutdownGraceMs);
    await Promise.all([new Promise<void>((resolve) => server.tryShutdown(() => resolve())), local.stop()]);
    clearTimeout(grace);
  };
  let stopped: Promise<void> | undefined;
  return {
    address: { host: options.listen.host, port },
    local,
    stop: () => (stopped ??= stop()),
    renewCertificate: (tls) => door.renewCertificate(tls),
    get connections() {
      return door.connections;
    },
    setServing: health.setServing,
  };
}
