import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { Socket } from "node:net";

// What a connection test's process may become when a server has the better of it. The order's document says which; it sees no other code.

const channel = new Socket({ fd: 3 });
const say = (text: string): void => void channel.write(text);
const answer = (details: object): string => `${JSON.stringify({ success: true, layer: null, reason: "ok", message: "Done.", nextStep: "", details })}\n`;

/** Why something is denied; what it gives is not looked at. */
function denied(act: () => unknown): string {
  try {
    act();
    return "allowed";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : "failed";
  }
}

const held: Buffer[] = [];

const BEHAVIOURS: Readonly<Record<string, (document: Record<string, string>) => unknown>> = {
  answer: () => say(answer({ pid: process.pid })),
  crash: () => process.abort(),
  exit: () => process.exit(0),
  throw: () => {
    throw new Error("canary");
  },
  hang: () => {},
  block: () => {
    for (;;);
  },
  hog: () => setInterval(() => held.push(Buffer.alloc(32 * 1024 * 1024, 1)), 20),
  heap: () => {
    const all: object[] = [];
    for (;;) all.push(Array.from({ length: 1_000 }, () => all.length));
  },
  garbage: ({ text = "" }) => say(text),
  flood: () => setInterval(() => say("x".repeat(1024 * 1024)), 1),
  twice: () => say(answer({ round: 1 }) + answer({ round: 2 })),
  loud: () => {
    for (const fd of [1, 2]) denied(() => writeFileSync(fd, "canary-output\n"));
    process.stdout.write("canary-output\n");
    process.stderr.write("canary-output\n");
    say(answer({}));
  },
  environment: () => say(answer({ names: Object.keys(process.env).join(), arguments: process.argv.slice(2).join(), cwd: process.cwd() })),
  locks: async ({ file = "" }) => {
    const [programs, threads, inspector] = await Promise.all([import("node:child_process"), import("node:worker_threads"), import("node:inspector")]);
    const details = {
      passwd: denied(() => readFileSync("/etc/passwd")),
      environ: denied(() => readFileSync("/proc/self/environ")),
      exists: denied(() => existsSync("/etc/passwd")),
      read: denied(() => readFileSync(file)),
      write: denied(() => writeFileSync(`${file}.new`, "")),
      append: denied(() => appendFileSync(file, "")),
      program: denied(() => programs.execFileSync("/bin/true")),
      thread: denied(() => new threads.Worker("", { eval: true })),
      inspector: denied(() => new inspector.Session().connect()),
      code: denied(() => Reflect.construct(Function, ["return 1"])),
      proto: denied(() => Reflect.get({}, "__proto__")),
    };
    say(answer(details));
  },
};

let order = "";
channel.on("data", (chunk: Buffer) => {
  order += chunk.toString();
  if (!order.endsWith("\n")) return;
  const { task } = JSON.parse(order) as { task: { document: Record<string, string> } };
  void BEHAVIOURS[task.document["behaviour"] ?? ""]?.(task.document);
});
channel.on("error", () => process.exit(1));
say("\n");
channel.on("close", () => process.exit(0));
