import { Socket } from "node:net";

// A connection test's process that never becomes ready, and ends with the service.

const channel = new Socket({ fd: 3 });
channel.on("close", () => process.exit(0));
channel.resume();
