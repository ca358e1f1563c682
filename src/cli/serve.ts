import type { Command } from "commander";
import type { Context } from "./context.ts";

const EXAMPLE = `
Example:
  $ CREDENTIALS_GRPC_LISTEN=127.0.0.1:50051 flow-credentials serve`;

/** `serve`: runs the service until a stop signal. */
export function addServe(program: Command, context: Context): void {
  program
    .command("serve")
    .description("run the service; it is configured by CREDENTIALS_… variables")
    .addHelpText("after", EXAMPLE)
    .action(async () => {
      const { serve } = await import("../serve.ts");
      await serve(context.env);
    });
}
