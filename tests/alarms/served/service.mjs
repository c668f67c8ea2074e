// A Node service with a worker thread; it re-reads its configuration by SIGHUP and opens its log for each line.
import { appendFileSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Worker } from "node:worker_threads";

let conf = readFileSync("conf");
process.on("SIGHUP", () => { conf = readFileSync("conf"); });
new Worker("setInterval(() => { let n = 0; for (let i = 0; i < 1e5; i++) n += i; }, 100)", { eval: true });
createServer((request, response) => {
  appendFileSync("log/service.log", `${request.url}\n`);
  response.end(conf);
}).listen(Number(process.argv[2]), "127.0.0.1");
