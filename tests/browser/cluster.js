// A cluster of one process on loopback, in a folder of its own, from the programs in TELEPORT_BIN_DIR.

import { spawn, execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync, openSync, closeSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const programs = resolve(process.env.TELEPORT_BIN_DIR ?? join(import.meta.dirname, "../../target/debug"));

/** Nothing of the caller's own clusters or proxies may reach the programs. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(TELEPORT_|SSH_)|_proxy$/i.test(name)),
);

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Asks until the answer is yes; fails with what it waited for. */
async function until(what, condition, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    if (await condition()) return;
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

/** An Auth Service and a Proxy Service in one process. */
export class Cluster {
  static async start() {
    const cluster = new Cluster();
    cluster.folder = await mkdtemp(join(tmpdir(), "browser-tests-"));
    try {
      await cluster.#launch();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  async #launch() {
    for (const program of ["teleport", "tctl"]) {
      if (!existsSync(join(programs, program))) throw new Error(`${join(programs, program)} is missing: build it, or set TELEPORT_BIN_DIR`);
    }
    const [web, auth, diagnostics] = [await freePort(), await freePort(), await freePort()];
    this.url = `https://localhost:${web}`;
    this.configuration = join(this.folder, "teleport.yaml");
    this.log = join(this.folder, "teleport.log");
    await writeFile(this.configuration, `version: v3
teleport:
  nodename: main-host
  data_dir: ${this.folder}/data
  log: {output: stderr, severity: INFO}
auth_service:
  enabled: true
  cluster_name: main.test
  listen_addr: 127.0.0.1:${auth}
  proxy_listener_mode: multiplex
  authentication: {type: local, second_factor: otp}
proxy_service:
  enabled: true
  web_listen_addr: 127.0.0.1:${web}
  tunnel_listen_addr: 127.0.0.1:${web}
  public_addr: localhost:${web}
ssh_service: {enabled: false}
`);
    const log = openSync(this.log, "a");
    const args = ["start", "-c", this.configuration, "--insecure", `--diag-addr=127.0.0.1:${diagnostics}`];
    this.process = spawn(join(programs, "teleport"), args, { env, stdio: ["ignore", log, log] });
    closeSync(log);
    let failure;
    this.process.once("error", (error) => { failure = error; });
    await until("the cluster to be ready", async () => {
      if (failure) throw failure;
      if (this.process.exitCode !== null) throw new Error(`teleport ended with ${this.process.exitCode}:\n${this.tail()}`);
      return fetch(`http://127.0.0.1:${diagnostics}/readyz`).then((answer) => answer.ok, () => false);
    });
    // Links of invitations carry the address that the proxy announces.
    await until("the proxy to be announced", async () => (await this.tctl("get", "proxies")).includes(`localhost:${web}`));
  }

  /** The end of the log, for failures. */
  tail() {
    return existsSync(this.log) ? readFileSync(this.log, "utf8").slice(-3000) : "";
  }

  async tctl(...args) {
    const { stdout } = await run(join(programs, "tctl"), ["-c", this.configuration, ...args], { env, timeout: 60_000 });
    return stdout;
  }

  /** Adds a user; returns the link for them. */
  async invite(user) {
    const said = await this.tctl("users", "add", user, "--roles=access", "--logins=root");
    return link(said);
  }

  /** Takes a user's credentials away; returns the link for new ones. */
  async reset(user) {
    return link(await this.tctl("users", "reset", user));
  }

  async stop() {
    if (this.process?.pid && this.process.exitCode === null && this.process.signalCode === null) {
      const ended = once(this.process, "exit");
      this.process.kill("SIGTERM");
      const slow = setTimeout(() => this.process.kill("SIGKILL"), 15_000);
      await ended;
      clearTimeout(slow);
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}

function link(said) {
  const found = said.match(/https:\/\/\S+\/web\/(?:invite|reset)\/[\w.~-]+/);
  if (!found) throw new Error(`no link in what tctl said:\n${said}`);
  return found[0];
}
