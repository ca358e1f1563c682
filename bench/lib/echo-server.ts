/** The empty call: the same messages and the same server library as the service, and no work. Prints `ready grpc=host:port`. */
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { CredentialServiceService, ResolveCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";

const ANSWER = ResolveCredentialResponse.fromPartial({
  credentialId: "00000000-0000-4000-8000-000000000000",
  provider: 3,
  credentialType: 5,
  secretVersion: 1n,
  credentials: {
    $case: "sftpPassword",
    value: { host: "sftp.example.com", port: 22, username: "reports", password: "p".repeat(32), hostKeyFingerprint: `SHA256:${"A".repeat(43)}` },
  },
});

const { resolveCredential } = CredentialServiceService;
const server = new Server();
server.addService({ resolveCredential }, { resolveCredential: (_: unknown, done: (error: null, value: ResolveCredentialResponse) => void) => done(null, ANSWER) });
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.stdout.write(`ready grpc=127.0.0.1:${port}\n`);
});
process.once("SIGTERM", () => server.forceShutdown());
