import { providers } from "../providers/index.ts";
import { serveOneTask } from "./probe-serve.ts";

// The process of one connection test. Only this file knows both the ways out and the providers; nothing imports it.
await serveOneTask(({ provider, credentialType }) => providers[provider].types[credentialType]);
