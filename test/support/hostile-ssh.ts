import { generateKeyPairSync } from "node:crypto";
import type { Socket } from "node:net";
import ssh2 from "ssh2";
import type { AuthContext, Connection, ServerConfig, Session, SFTPWrapper } from "ssh2";
import { ALGORITHMS } from "../../src/providers/checks/ssh-greeting.ts";
import { listen, type Scripted } from "./hostile-tcp.ts";

/** How an SSH server introduces itself. */
export const BANNER = "SSH-2.0-Hostile_1.0 canary-of-the-server\r\n";
const STRICT = "kex-strict-s-v00@openssh.com";

/** A server's offer of algorithms (RFC 4253 section 7.1) in a packet; what is not given is what the check offers. */
export function kexInit(changes: { kex?: string[]; hostKey?: string[]; cipher?: string[]; mac?: string[]; compress?: string[] } = {}): Buffer {
  const { kex = [...ALGORITHMS.kex, STRICT], hostKey = ALGORITHMS.serverHostKey, cipher = ALGORITHMS.cipher, mac = ALGORITHMS.hmac, compress = ["none"] } = changes;
  const list = (names: readonly string[]): Buffer => {
    const text = Buffer.from(names.join(","));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    return Buffer.concat([length, text]);
  };
  const lists = [kex, hostKey, cipher, cipher, mac, mac, compress, compress, [], []].map(list);
  return packet(Buffer.concat([Buffer.from([20]), Buffer.alloc(16, 7), ...lists, Buffer.alloc(5)]));
}

/** Frames a payload as an SSH packet in clear. */
export function packet(payload: Buffer): Buffer {
  const padding = 8 - ((5 + payload.length) % 8) + 8;
  const head = Buffer.alloc(5);
  head.writeUInt32BE(1 + payload.length + padding, 0);
  head.writeUInt8(padding, 4);
  return Buffer.concat([head, payload, Buffer.alloc(padding)]);
}

/** What a scripted SSH server does; what is not given is what a friendly server does. */
export interface SshScript {
  /** Decides about a login; accepts everyone unless given. */
  readonly login?: (attempt: AuthContext, connection: Connection, socket: Socket) => void;
  /** Takes a session; serves SFTP unless given. */
  readonly session?: (accept: () => Session, reject: () => void, socket: Socket) => void;
  /** Changes the SFTP server before it answers. */
  readonly sftp?: (sftp: SFTPWrapper, socket: Socket) => void;
  readonly config?: Partial<ServerConfig>;
  /** Does not say which signature algorithms it takes (RFC 8308). */
  readonly silentAboutSignatures?: boolean;
}

const hostKey = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey.export({ format: "pem", type: "sec1" }).toString();

/** A scripted SSH server and what it was asked. */
export interface ScriptedSsh extends Scripted {
  /** Methods of the logins that were tried, in order. */
  readonly methods: string[];
  /** Passwords that arrived, in whatever way. */
  readonly passwords: string[];
}

/** Starts one. */
export async function sshServer(script: SshScript = {}): Promise<ScriptedSsh> {
  const methods: string[] = [];
  const passwords: string[] = [];
  const server = await listen((socket) => {
    const ssh = new ssh2.Server({ hostKeys: [hostKey], ...script.config }, (connection) => {
      connection.on("error", () => {});
      if (script.silentAboutSignatures) silence(connection);
      connection.on("authentication", (attempt) => {
        methods.push(attempt.method);
        if (attempt.method === "password") passwords.push(attempt.password);
        (script.login ?? acceptAll)(attempt, connection, socket);
      });
      connection.on("session", (accept, reject) => {
        if (script.session) return script.session(accept, reject, socket);
        accept().on("sftp", (acceptSftp) => {
          const sftp = acceptSftp();
          friendly(sftp);
          script.sftp?.(sftp, socket);
        });
      });
    });
    ssh.injectSocket(socket);
  });
  return Object.assign(server, { methods, passwords });
}

/** Keeps the library from announcing anything: it has no option for that. */
function silence(connection: Connection): void {
  const { _protocol: protocol } = connection as unknown as { _protocol: object };
  let exchange: object | undefined;
  const set = (value: object | undefined): void => {
    exchange = value && Object.defineProperty(value, "remoteExtInfoEnabled", { get: () => false, set: () => {} });
  };
  Object.defineProperty(protocol, "_kex", { get: () => exchange, set });
}

const METHODS = ["password", "publickey", "keyboard-interactive"] as const;

/** Lets everyone in who presents anything. */
export function acceptAll(attempt: AuthContext): void {
  if (attempt.method === "none") attempt.reject([...METHODS]);
  else attempt.accept();
}

/** SFTP with one folder that forgets everything but the file under test. */
function friendly(sftp: SFTPWrapper): void {
  const files = new Map<string, Buffer>();
  let open = "";
  const { OK, EOF } = ssh2.utils.sftp.STATUS_CODE;
  const ok = (id: number): unknown => sftp.status(id, OK);
  sftp.on("error", () => {});
  sftp.on("STAT", (id) => sftp.attrs(id, { mode: 0o040755, uid: 0, gid: 0, size: 0, atime: 0, mtime: 0 }));
  sftp.on("OPENDIR", (id) => sftp.handle(id, Buffer.from("folder")));
  sftp.on("READDIR", (id) => sftp.status(id, EOF));
  sftp.on("CLOSE", (id) => ok(id));
  sftp.on("OPEN", (id, path) => {
    open = path;
    sftp.handle(id, Buffer.from("file"));
  });
  sftp.on("WRITE", (id, _handle, _offset, data) => {
    files.set(open, Buffer.from(data));
    ok(id);
  });
  sftp.on("READ", (id) => sftp.data(id, files.get(open) ?? Buffer.alloc(0)));
  sftp.on("REMOVE", (id) => ok(id));
}
