import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Service } from "./service.ts";

/** Where the runbook installs, and where its service tells how it is. */
const [HOME, OPS] = ["/etc/flow-credentials", "http://127.0.0.1:9090"];

/** The line of the unit that has the service read its files again. */
const RELOAD = /^ExecReload=(.*)$/m;

/** One entry of the runbook: what stands below a heading. */
export interface Entry {
  readonly title: string;
  /** Its blocks of code in their order, with what they are written in. */
  readonly blocks: readonly { readonly language: string; readonly text: string }[];
}

/** Every entry of `docs/operations.md`. */
export function entries(document = readFileSync("docs/operations.md", "utf8")): Entry[] {
  return document.split(/^## /m).slice(1).map((part) => {
    const blocks = [...part.matchAll(/^```([a-z]+)\n(.*?)^```$/gms)].map(([, language = "", text = ""]) => ({ language, text }));
    return { title: part.slice(0, part.indexOf("\n")), blocks };
  });
}

/** The blocks of one entry that are written in this language; at least one. */
export function blocksOf(title: string, language = "sh"): string[] {
  const blocks = entries().find((entry) => entry.title === title)?.blocks.filter((block) => block.language === language) ?? [];
  if (blocks.length === 0) throw new Error(`the runbook has no entry "${title}" with a block of ${language}`);
  return blocks.map(({ text }) => text);
}

/** What a script has said, and how it ended. */
export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where an operator types: a folder, an environment of its own, and the installed command. */
export class Terminal {
  readonly folder: string;
  /** Variables that later scripts see. */
  readonly env: Record<string, string>;
  #service: Service | undefined;

  /** @param folder stands for the runbook's /etc/flow-credentials; @param programs folders of further programs, such as those of a database server */
  constructor(folder: string, env: Readonly<Record<string, string>>, programs: readonly string[] = []) {
    this.folder = folder;
    writeFileSync(join(folder, "flow-credentials"), `#!/bin/sh\nexec "${process.execPath}" "${resolve("src/cli/main.ts")}" "$@"\n`, { mode: 0o755 });
    this.env = { PATH: [folder, ...programs, dirname(process.execPath), "/usr/bin", "/bin"].join(":"), ...env };
  }

  /** Has `systemctl` and `journalctl` mean this process, which no systemd runs. */
  serve(service: Service): void {
    this.#service = service;
    const reload = RELOAD.exec(readFileSync("deploy/systemd/flow-credentials.service", "utf8"))?.[1]?.replace("$MAINPID", String(service.process.pid));
    writeFileSync(join(this.folder, "systemctl"), `#!/bin/sh\n[ "$*" = "reload flow-credentials" ] && ${reload}\n`, { mode: 0o755 });
    writeFileSync(join(this.folder, "journalctl"), `#!/bin/sh\n[ "$*" = "--unit flow-credentials --output cat" ] && cat "${join(this.folder, "journal")}"\n`, { mode: 0o755 });
    this.env["FLOW_CREDENTIALS_TARGET"] = service.grpc;
  }

  /** A text of the runbook with this machine's folder and listener in it. */
  here(text: string): string {
    return text.replaceAll(HOME, this.folder).replaceAll(OPS, this.#service?.ops ?? OPS);
  }

  /** Runs a script as it stands, but for the above, until its first command that fails. */
  try(script: string): Promise<Said> {
    if (this.#service) writeFileSync(join(this.folder, "journal"), this.#service.output());
    return new Promise((done) => {
      execFile("bash", ["--norc", "-euo", "pipefail", "-c", this.here(script)], { cwd: this.folder, env: this.env }, (error, stdout, stderr) => done({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }));
    });
  }

  /** The same, of a script that is to succeed; gives what it printed. */
  async run(script: string): Promise<string> {
    const { code, stdout, stderr } = await this.try(script);
    if (code !== 0) throw new Error(`exit ${code}\n${script}\n${stdout}${stderr}`);
    return stdout;
  }
}
