//! Who waits for a place at an upstream, in an order that is fair among keys: as long as several wait, each of them gets a place in
//! turn, however many requests one of them has sent. No waker, lock or clock in here but what it is given to keep.
//!
//! Each request has a number, one more than the last of its own key's or than what is being served now, whichever is more, and
//! the lowest number is next (start-time fair queueing, with requests that all cost the same). When the queue is full, who
//! comes takes the place of the one with the highest number, if its own is lower: a key that floods sheds its own requests.

/// A place in the queue.
pub(crate) type Ticket = u64;

/// What has become of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// It is not its turn yet.
    Waiting,
    /// It is.
    Granted,
    /// Somebody else has taken it.
    Evicted,
}

/// The queue; `W` is what wakes those who wait.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    entries: Vec<Entry<W>>,
    served: u64,
    next: Ticket,
}

#[derive(Debug)]
struct Entry<W> {
    ticket: Ticket,
    key: u64,
    number: u64,
    turn: Turn,
    waker: Option<W>,
}

impl<W> Default for Queue<W> {
    fn default() -> Queue<W> {
        Queue { entries: Vec::new(), served: 0, next: 0 }
    }
}

impl<W> Queue<W> {
    /// Those who wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting().count()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().next().is_none()
    }

    /// A place for a request of `key` where `max` may wait, and what wakes the one whose place it has taken; none if there is no
    /// place for it.
    pub(crate) fn push(&mut self, key: u64, max: usize) -> Option<(Ticket, Option<W>)> {
        let own = self.waiting().filter(|entry| entry.key == key).map(|entry| entry.number).max();
        let number = own.unwrap_or(self.served) + 1;
        let mut evicted = None;
        if max == 0 {
            return None;
        }
        if self.len() >= max {
            let last = self.waiting_mut().max_by_key(|entry| (entry.number, entry.ticket))?;
            if last.number <= number {
                return None;
            }
            last.turn = Turn::Evicted;
            evicted = last.waker.take();
        }
        let ticket = self.next;
        self.next += 1;
        self.entries.push(Entry { ticket, key, number, turn: Turn::Waiting, waker: None });
        Some((ticket, evicted))
    }

    /// It is the next one's turn; gives what wakes it. None if nobody waits.
    pub(crate) fn grant(&mut self) -> Option<Option<W>> {
        let next = self.waiting_mut().min_by_key(|entry| (entry.number, entry.ticket))?;
        next.turn = Turn::Granted;
        let (number, waker) = (next.number, next.waker.take());
        self.served = number;
        Some(waker)
    }

    /// What has become of `ticket`. While it waits, `waker` is kept; otherwise the place is given back with this.
    pub(crate) fn look(&mut self, ticket: Ticket, waker: W) -> Turn {
        let Some(at) = self.entries.iter().position(|entry| entry.ticket == ticket) else {
            return Turn::Evicted;
        };
        match self.entries[at].turn {
            Turn::Waiting => {
                self.entries[at].waker = Some(waker);
                Turn::Waiting
            }
            turn => {
                self.entries.swap_remove(at);
                turn
            }
        }
    }

    /// Gives a place back. Says what it was.
    pub(crate) fn forget(&mut self, ticket: Ticket) -> Option<Turn> {
        let at = self.entries.iter().position(|entry| entry.ticket == ticket)?;
        Some(self.entries.swap_remove(at).turn)
    }

    fn waiting(&self) -> impl Iterator<Item = &Entry<W>> {
        self.entries.iter().filter(|entry| entry.turn == Turn::Waiting)
    }

    fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Entry<W>> {
        self.entries.iter_mut().filter(|entry| entry.turn == Turn::Waiting)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Serves until nobody waits; the keys in their order.
    fn serve(queue: &mut Queue<()>, tickets: &[(u64, Ticket)]) -> Vec<u64> {
        let mut order = Vec::new();
        while queue.grant().is_some() {
            for (key, ticket) in tickets {
                if queue.look(*ticket, ()) == Turn::Granted {
                    order.push(*key);
                }
            }
        }
        order
    }

    #[test]
    fn keys_take_turns_and_each_ones_requests_keep_their_order() {
        let mut queue = Queue::default();
        let keys = [1, 1, 1, 1, 2, 2, 3];
        let tickets = keys.map(|key| (key, queue.push(key, 10).unwrap().0));
        assert_eq!(serve(&mut queue, &tickets), [1, 2, 3, 1, 2, 1, 1]);
    }

    #[test]
    fn a_full_queue_sheds_the_greediest() {
        let mut queue = Queue::<()>::default();
        let greedy: Vec<_> = (0..4).map(|_| queue.push(1, 4).unwrap().0).collect();
        assert!(queue.push(1, 4).is_none(), "it has more than its share already");
        let modest = queue.push(2, 4).unwrap().0;
        assert_eq!(queue.look(greedy[3], ()), Turn::Evicted);
        assert_eq!(queue.look(modest, ()), Turn::Waiting);
        assert!(queue.push(2, 0).is_none() && queue.len() == 4);
    }

    proptest! {
        /// Whatever comes: never more than `max` wait, every place ends in exactly one way, and nothing is left behind.
        #[test]
        fn nobody_is_lost(steps in proptest::collection::vec((0u8..4, 0u64..5), 0..300), max in 0usize..12) {
            let (mut queue, mut open, mut granted, mut taken) = (Queue::default(), Vec::new(), 0, 0);
            for (step, key) in steps {
                match step {
                    0 | 1 => open.extend(queue.push(key, max).map(|(ticket, _)| ticket)),
                    2 => granted += usize::from(queue.grant().is_some()),
                    _ if open.is_empty() => {}
                    _ => {
                        let ticket = open.swap_remove(key as usize % open.len());
                        taken += usize::from(queue.forget(ticket) == Some(Turn::Granted));
                    }
                }
                open.retain(|ticket| match queue.look(*ticket, ()) {
                    Turn::Granted => { taken += 1; false }
                    Turn::Evicted => false,
                    Turn::Waiting => true,
                });
                prop_assert!(queue.len() <= max && queue.len() == open.len());
            }
            prop_assert_eq!(granted, taken);
            prop_assert_eq!(queue.entries.len(), open.len());
        }

        /// While several keys always have somebody waiting, none gets more than one place ahead of another.
        #[test]
        fn who_waits_is_served_in_turn(counts in proptest::collection::vec(10usize..20, 2..5)) {
            let mut queue = Queue::default();
            let mut tickets = Vec::new();
            for (key, count) in counts.iter().enumerate() {
                tickets.extend((0..*count).map(|_| (key as u64, queue.push(key as u64, 1000).unwrap().0)));
            }
            let order = serve(&mut queue, &tickets);
            for served in 0..counts.len() * 10 {
                let of = |key| order[..served].iter().filter(|other| **other == key as u64).count();
                let shares: Vec<_> = (0..counts.len()).map(of).collect();
                prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }
}
