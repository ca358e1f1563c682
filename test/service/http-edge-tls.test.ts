import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { makeCertificate } from "../support/certificate.ts";
import { scrape } from "../support/metrics.ts";
import { startFresh, temporaryFolder } from "../support/service.ts";
import { wire } from "../support/wire.ts";

/** A handshake; gives the certificate's fingerprint and the protocol, or the error's code. */
async function handshake(address: string, options: { ca: string; maxVersion?: "TLSv1.1" | "TLSv1.2"; alpn?: string }): Promise<{ fingerprint?: string; protocol?: string | null; code?: string }> {
  const [host = "", port = ""] = address.split(":");
  const socket: TLSSocket = connect({
    host, port: Number(port), servername: "localhost", ca: options.ca, ALPNProtocols: [options.alpn ?? "http/1.1"],
    ...(options.maxVersion === undefined ? {} : { maxVersion: options.maxVersion, minVersion: "TLSv1" as const, ciphers: "DEFAULT:@SECLEVEL=0" }),
  });
  try {
    await once(socket, "secureConnect");
    return { fingerprint: socket.getPeerCertificate().fingerprint256, protocol: socket.getProtocol() };
  } catch (error) {
    return { code: (error as NodeJS.ErrnoException).code ?? "error" };
  } finally {
    socket.destroy();
  }
}

function status(url: string, ca: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(`${url}/integrations/credentials`, { ca, servername: "localhost", agent: false }, (response) => resolve(response.resume().statusCode)).on("error", reject).end();
  });
}

/** Calls a method that does not exist: its refusal shows that the connection stands. */
function grpcStatus(target: string, ca: string): Promise<number> {
  const client = new Client(target, credentials.createSsl(Buffer.from(ca)), { "grpc.ssl_target_name_override": "localhost" });
  return new Promise((resolve) => {
    client.makeUnaryRequest("/no.Service/Method", () => Buffer.alloc(0), () => null, {}, { deadline: Date.now() + 10_000 }, (error: ServiceError | null) => resolve(error?.code ?? 0));
  }).finally(() => client.close()) as Promise<number>;
}

test("REST and gRPC speak TLS, and show another certificate after SIGHUP, unless it cannot be right", async () => {
  using folder = temporaryFolder();
  const [first, second, other] = await Promise.all([makeCertificate(), makeCertificate(), makeCertificate()]);
  const [cert, key] = [join(folder.path, "tls.pem"), join(folder.path, "tls.key")];
  const put = (pair: { cert: string; key: string }) => {
    writeFileSync(cert, pair.cert);
    writeFileSync(key, pair.key);
  };
  put(first);
  await using service = await startFresh({ CREDENTIALS_TLS_CERT_FILE: cert, CREDENTIALS_TLS_KEY_FILE: key, CREDENTIALS_OPS_LISTEN: "127.0.0.1:0" });
  const address = service.rest.replace("https://", "");

  const before = await handshake(address, first);
  expect(before.protocol).toMatch(/^TLSv1\.[23]$/);
  expect(await status(service.rest, first.ca)).toBe(401);
  expect(await grpcStatus(service.grpc, first.ca)).toBe(12);
  expect((await handshake(address, { ca: first.ca, maxVersion: "TLSv1.2" })).protocol).toBe("TLSv1.2");
  expect((await handshake(address, { ca: first.ca, maxVersion: "TLSv1.1" })).code).toBeDefined();
  expect((await handshake(address, { ca: other.ca })).code).toBeDefined();
  const plain = await wire(service.rest.replace("https:", "http:"), "GET /integrations/credentials HTTP/1.1\r\nHost: a\r\n\r\n");
  expect(await plain.closed).not.toContain("200");

  const ends = async () => (await scrape(service)).value("credentials_tls_certificate_end_timestamp_seconds");
  expect(await ends()).toBe(Date.parse(new X509Certificate(first.cert).validTo) / 1000);

  put({ cert: second.cert, key: other.key });
  service.process.kill("SIGHUP");
  await expect.poll(() => service.output()).toContain("CREDENTIALS_TLS_KEY_FILE is not the key");
  expect((await handshake(address, first)).fingerprint).toBe(before.fingerprint);

  put(second);
  service.process.kill("SIGHUP");
  await expect.poll(() => service.output()).toContain("the certificate was loaded again");
  const after = await handshake(address, second);
  expect(after.fingerprint).toBeDefined();
  expect(after.fingerprint).not.toBe(before.fingerprint);
  expect((await handshake(service.grpc, { ...second, alpn: "h2" })).fingerprint).toBe(after.fingerprint);
  expect([await status(service.rest, second.ca), await grpcStatus(service.grpc, second.ca)]).toEqual([401, 12]);
  expect(service.output()).not.toContain("PRIVATE KEY");
});

test("client certificates are asked for by the authority of the newest file", async () => {
  using folder = temporaryFolder();
  const [server, first, second] = await Promise.all([makeCertificate(), makeCertificate(), makeCertificate()]);
  const paths = { cert: join(folder.path, "tls.pem"), key: join(folder.path, "tls.key"), ca: join(folder.path, "clients.pem") };
  writeFileSync(paths.cert, server.cert);
  writeFileSync(paths.key, server.key);
  writeFileSync(paths.ca, first.ca);
  await using service = await startFresh({ CREDENTIALS_TLS_CERT_FILE: paths.cert, CREDENTIALS_TLS_KEY_FILE: paths.key, CREDENTIALS_TLS_CLIENT_CA_FILE: paths.ca });
  const call = (client: { cert: string; key: string }) => {
    const channel = new Client(service.grpc, credentials.createSsl(Buffer.from(server.ca), Buffer.from(client.key), Buffer.from(client.cert)), { "grpc.ssl_target_name_override": "localhost" });
    return new Promise<number>((resolve) => {
      channel.makeUnaryRequest("/no.Service/Method", () => Buffer.alloc(0), () => null, {}, { deadline: Date.now() + 10_000 }, (error: ServiceError | null) => resolve(error?.code ?? 0));
    }).finally(() => channel.close());
  };
  expect([await call(first), await call(second)]).toEqual([12, 14]);
  writeFileSync(paths.ca, second.ca);
  service.process.kill("SIGHUP");
  await expect.poll(() => service.output()).toContain("the certificate was loaded again");
  expect([await call(first), await call(second)]).toEqual([14, 12]);
});
