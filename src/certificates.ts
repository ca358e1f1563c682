import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { type Config, ConfigError } from "./config.ts";
import { errorFields, identified, type Log } from "./log.ts";

/** What the listeners show to their clients, and whom they trust, PEM. */
export interface TlsFiles {
  readonly certificate: Buffer;
  readonly key: Buffer;
  readonly clientCa?: Buffer;
}

/** The bytes of a file that a setting names. Throws ConfigError. */
export function readPem(setting: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ConfigError(`${setting} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

/** Reads what the listeners show; undefined where they speak plaintext. Throws ConfigError where key and certificate do not fit. */
export function tlsOf({ settings: { tlsCertFile, tlsKeyFile, tlsClientCaFile } }: Config): TlsFiles | undefined {
  if (tlsCertFile === undefined || tlsKeyFile === undefined) return undefined;
  const certificate = readPem("CREDENTIALS_TLS_CERT_FILE", tlsCertFile);
  const key = readPem("CREDENTIALS_TLS_KEY_FILE", tlsKeyFile);
  const shown = parsed("CREDENTIALS_TLS_CERT_FILE holds no certificate in PEM", () => new X509Certificate(certificate));
  const secret = parsed("CREDENTIALS_TLS_KEY_FILE holds no private key in PEM without a passphrase", () => createPrivateKey(key));
  if (!shown.checkPrivateKey(secret)) throw new ConfigError("CREDENTIALS_TLS_KEY_FILE is not the key of the certificate in CREDENTIALS_TLS_CERT_FILE");
  if (tlsClientCaFile === undefined) return { certificate, key };
  const clientCa = readPem("CREDENTIALS_TLS_CLIENT_CA_FILE", tlsClientCaFile);
  parsed("CREDENTIALS_TLS_CLIENT_CA_FILE holds no certificate in PEM", () => new X509Certificate(clientCa));
  return { certificate, key, clientCa };
}

function parsed<T>(fault: string, read: () => T): T {
  try {
    return read();
  } catch {
    throw new ConfigError(fault);
  }
}

/** The certificate of the listeners while they listen. */
export class Certificates {
  readonly #log: Log;
  readonly #listeners: ((files: TlsFiles) => void)[] = [];
  #current: TlsFiles | undefined;

  constructor(current: TlsFiles | undefined, log: Log) {
    this.#current = current;
    this.#log = log;
  }

  get current(): TlsFiles | undefined {
    return this.#current;
  }

  /** When the certificate ends, s since 1970; undefined where there is none. */
  get endsAt(): number | undefined {
    return this.#current && Date.parse(new X509Certificate(this.#current.certificate).validTo) / 1000;
  }

  /** Tells a listener of every other certificate from now on. */
  onChange(listener: (files: TlsFiles) => void): void {
    this.#listeners.push(listener);
  }

  /** Takes over the files of a configuration that is read again. Where they cannot be right those from before stay, and the log says why. */
  reload(read: () => Config): void {
    if (!this.#current) return;
    const log = identified(this.#log);
    try {
      const next = tlsOf(read());
      if (!next || (next.clientCa === undefined) !== (this.#current.clientCa === undefined)) throw new ConfigError("TLS and client certificates are turned on and off by a restart");
      for (const listener of this.#listeners) listener(next);
      this.#current = next;
      log.info({}, "the certificate was loaded again");
    } catch (error) {
      log.error({ ...errorFields(error), reason: error instanceof ConfigError ? error.message : undefined }, "the certificate was not loaded again; the one from before stays");
    }
  }
}
