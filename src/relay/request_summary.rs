//! What is kept of a request whose answer may go on for days: what its line in the log says, and nothing else.

use std::net::IpAddr;

use super::context::Core;
use super::request::Request;
use super::request_record::Ledger;
use crate::admission::request_limits::Account;
use crate::runtime::clock::Micros;
use crate::telemetry::{Outcome, TraceContext};

const _: () = assert!(size_of::<Memo>() <= 96, "it fits a class of the allocator's");

/// What is kept of a GET that is being answered with events.
pub(crate) struct Memo {
    began: Micros,
    /// Its path, without the query, which is not logged, and its id behind that: one piece of memory for both.
    text: Box<str>,
    path_bytes: u32,
    trace: TraceContext,
    peer: IpAddr,
    client: Option<IpAddr>,
    account: Option<Box<Account>>,
}

impl Memo {
    /// Of `request`, which came from `peer` at `began`; everything else of it is let go of.
    pub(crate) fn of(mut request: Request, peer: IpAddr, began: Micros) -> Box<Memo> {
        debug_assert_eq!(&*request.method, "GET", "only reads are answered with events");
        Box::new(Memo {
            began,
            text: [request.path(), &request.id].concat().into(),
            path_bytes: request.path().len() as u32,
            trace: request.trace,
            peer,
            client: request.client,
            account: request.account.take(),
        })
    }

    /// Whom it came from.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Logs and counts it as answered with 200 and `told`, so many events and bytes of them, however that has ended.
    pub(crate) fn close(self, outcome: Outcome, told: (u64, u64), core: &Core) {
        let mut ledger = Ledger::new(self.began);
        (ledger.status, ledger.stream) = (200, true);
        (ledger.events, ledger.bytes_out) = told;
        let mut request = Request::nothing(self.trace);
        request.method = "GET".into();
        let (path, id) = self.text.split_at(self.path_bytes as usize);
        (request.target, request.path_bytes, request.id) = (path.into(), path.len(), id.into());
        (request.client, request.account) = (self.client, self.account);
        ledger.close(outcome, &request, self.peer, core);
    }
}
