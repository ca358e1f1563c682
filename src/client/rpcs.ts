import { type ClientUnaryCall, Metadata, type ServiceError } from "@grpc/grpc-js";
import { fromFailedCall } from "./error.ts";

/** The request of an RPC, and what it answers. */
type RequestOf<R> = R extends { readonly requestSerialize: (value: infer Request) => Buffer } ? Request : never;
type ResponseOf<R> = R extends { readonly responseDeserialize: (bytes: Buffer) => infer Response } ? Response : never;

/** The RPCs of a service as promises. Every rejection is a CredentialClientError. Nothing is tried twice. */
export type Rpcs<S> = { readonly [N in keyof S]: (request: RequestOf<S[N]>) => Promise<ResponseOf<S[N]>> };

type Start = (request: unknown, metadata: Metadata, options: { deadline: number }, done: (error: ServiceError | null, response: unknown) => void) => ClientUnaryCall;

/** One promise for each RPC that a service defines. */
export function rpcsOf<S extends object>(service: S, client: object, { token, deadlineMs }: { readonly token: string; readonly deadlineMs: number }): Rpcs<S> {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const call = (name: string) => (request: unknown) =>
    new Promise((resolve, reject) => {
      const start = (client as Readonly<Record<string, Start>>)[name] as Start;
      start.call(client, request, metadata, { deadline: Date.now() + deadlineMs }, (error, response) => (error ? reject(fromFailedCall(error, undefined)) : resolve(response)));
    });
  return Object.fromEntries(Object.keys(service).map((name) => [name, call(name)])) as unknown as Rpcs<S>;
}
