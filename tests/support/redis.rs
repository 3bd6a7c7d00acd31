//! A real Redis, in a directory of its own, that can be killed and comes back with what it had.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::edge::scratch;
use super::{Edge, reserved, wait_until};

/// A Redis that syncs what it acknowledges.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    port: u16,
    /// Keeps the port while it is down.
    _reserved: socket2::Socket,
    directory: PathBuf,
}

impl Redis {
    /// An empty one.
    pub fn start() -> Self {
        let directory = scratch("redis");
        std::fs::create_dir_all(&directory).expect("a directory for Redis");
        let (reserved, addr) = reserved();
        let mut redis = Self { child: None, port: addr.port(), _reserved: reserved, directory };
        redis.come_back();
        redis
    }

    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// A configuration that keeps streams here.
    pub fn config(&self) -> String {
        format!("[streams]\nredis = \"{}\"\n", self.url())
    }

    /// An edge that keeps streams here.
    pub fn node(&self) -> Edge {
        Edge::configured(&self.config())
    }

    /// What it answers.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().expect("a connection to Redis");
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).expect("an answer of Redis")
    }

    fn connection(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url()).and_then(|client| client.get_connection())
    }

    /// It is gone, as after a crash.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill Redis");
            child.wait().expect("its end");
        }
    }

    /// It is there again, with all that it has acknowledged.
    pub fn come_back(&mut self) {
        let port = self.port.to_string();
        let directory = self.directory.to_str().expect("UTF-8");
        let settings = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--dir",
            directory,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        let child = Command::new("redis-server").args(settings).stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server (the Debian package of that name) is installed"));
        wait_until("Redis answers", || {
            let mut connection = self.connection().ok();
            connection.as_mut().is_some_and(|redis| redis::cmd("PING").query::<String>(redis).is_ok())
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
