import { parentPort, workerData } from "node:worker_threads";
import { type KeyJob, openKey } from "./key-open.ts";

// One worker opens one key, so that deriving a key from a passphrase blocks nobody and ends with the worker.
parentPort?.postMessage(openKey(workerData as KeyJob));
