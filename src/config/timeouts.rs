//! How long anything may take.

use std::time::Duration;

use super::document::Table;
use super::units::duration;

/// How long each part of an exchange may take. Zero is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection to an upstream stands.
    pub connect: Duration,
    /// Until its TLS handshake is done, and a client's.
    pub tls: Duration,
    /// From a request's first byte to the end of its head.
    pub request_head: Duration,
    /// How long a request's body may make no progress.
    pub request_body: Duration,
    /// From the request's last byte to the answer's first.
    pub first_byte: Duration,
    /// Between two parts of a response. A model that thinks may be silent for minutes, and heartbeats keep the client's
    /// connection meanwhile; without these the default is [`IDLE_WITHOUT_HEARTBEATS`].
    pub idle: Duration,
    /// It was configured.
    idle_is_set: bool,
    /// The whole exchange.
    pub total: Duration,
    /// How long a client may take nothing of what waits for it.
    pub client_stall: Duration,
    /// How long a client's connection may be idle between two requests.
    pub keep_alive: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            request_body: Duration::from_secs(30),
            first_byte: Duration::from_secs(300),
            idle: Duration::from_secs(600),
            idle_is_set: false,
            total: Duration::from_secs(3600),
            client_stall: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
        }
    }
}

/// How long an upstream may be silent, if nothing else was configured, towards clients that see no heartbeats: below the two
/// minutes after which clients and proxies give a silent connection up, so that they are told why.
const IDLE_WITHOUT_HEARTBEATS: Duration = Duration::from_secs(110);

impl Timeouts {
    /// Takes the default for clients that get no heartbeats, if they get none.
    pub(crate) fn for_heartbeat(&mut self, heartbeat: Duration) {
        if heartbeat.is_zero() && !self.idle_is_set {
            self.idle = IDLE_WITHOUT_HEARTBEATS;
        }
    }

    /// These, but for what `[timeouts]` says.
    pub(crate) fn read(mut self, table: &Table<'_>) -> Timeouts {
        table.set("request_head", duration, &mut self.request_head);
        table.set("request_body", duration, &mut self.request_body);
        table.set("client_stall", duration, &mut self.client_stall);
        table.set("keep_alive", duration, &mut self.keep_alive);
        self.read_upstream(table)
    }

    /// These, but for what a route's `timeouts` say.
    pub(crate) fn read_route(self, table: &Table<'_>) -> Timeouts {
        for key in ["request_head", "request_body", "client_stall", "keep_alive"] {
            table.refuse(
                key,
                "holds before a route is chosen, so it is the same for all; set it in [timeouts]",
            );
        }
        self.read_upstream(table)
    }

    fn read_upstream(mut self, table: &Table<'_>) -> Timeouts {
        table.set("connect", duration, &mut self.connect);
        table.set("tls", duration, &mut self.tls);
        table.set("first_byte", duration, &mut self.first_byte);
        if let Some(idle) = table.get("idle", duration) {
            (self.idle, self.idle_is_set) = (idle, true);
        }
        table.set("total", duration, &mut self.total);
        self
    }
}
