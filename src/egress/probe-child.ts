import type { Provider } from "../providers/provider.ts";
import { serveOneTask } from "./probe-serve.ts";
import type { ProbeTask } from "./probe-task.ts";

// The process of one connection test. Only this file knows both the ways out and the providers; nothing imports it.

/** A child tests one provider, so it loads one, and its driver; those of the others would cost every test time and memory. */
const PROVIDERS: Readonly<Record<ProbeTask["provider"], () => Promise<Provider>>> = {
  microsoft: async () => (await import("../providers/microsoft.ts")).microsoft,
  sharepoint: async () => (await import("../providers/microsoft.ts")).sharepoint,
  sftp: async () => (await import("../providers/sftp.ts")).sftp,
  aws_ses: async () => (await import("../providers/aws-ses.ts")).awsSes,
  google: async () => (await import("../providers/google.ts")).google,
  postgresql: async () => (await import("../providers/postgresql.ts")).postgresql,
  internal_postgresql: async () => (await import("../providers/postgresql.ts")).internalPostgresql,
};

await serveOneTask(async ({ provider, credentialType }) => (await PROVIDERS[provider]()).types[credentialType]);
