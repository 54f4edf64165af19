//! The control task: takes what a shard asks and tells one after the other, and hands it the commands that follow.

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::relay::command::Command;
use crate::relay::command::Event;
use crate::turn::Processor;
use crate::turn::status::Query;

/// Drives `processor` until `shutdown`, or until the data plane is gone: `events` are the shard's, `asks` its streams'.
///
/// `send` hands it a command, and waits while its queue is full, so that requests wait (and are dropped at their own
/// queue) instead of commands being lost. Neither queue has to wait for the other to be empty. `queries` are an operator's.
pub async fn run<S, F, E>(
    mut processor: Processor<S>,
    mut events: mpsc::Receiver<Event>,
    mut asks: mpsc::Receiver<Event>,
    mut queries: mpsc::Receiver<Query>,
    send: impl Fn(Command<S>) -> F,
    clock: Clock,
    shutdown: CancellationToken,
) where
    F: Future<Output = Result<(), E>>,
{
    let (mut endings, mut rechecks) = (processor.endings(), processor.rechecks());
    loop {
        let timeout = processor.poll_timeout();
        let mut recheck = None;
        tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.recv() => match event {
                Some(event) => handle(&mut processor, event, clock).await,
                None => return,
            },
            Some(event) = asks.recv() => handle(&mut processor, event, clock).await,
            Some(query) = queries.recv() => processor.answer_query(query, clock.now()),
            () = until(timeout) => processor.handle_timeout(clock.now()).await,
            () = processor.ended() => {}
            Ok(asked) = rechecks.recv() => {
                recheck = Some(asked);
                processor.handle_recheck(clock.now()).await;
            }
            ending = endings.next() => processor.handle_ending(ending, clock.now()).await,
        }
        while let Some(command) = processor.poll_command() {
            if send(command).await.is_err() {
                return;
            }
        }
        drop(recheck);
    }
}

async fn handle<S>(processor: &mut Processor<S>, event: Event, clock: Clock) {
    match event {
        Event::Request(request) => processor.handle_request(&request, clock.now()).await,
        Event::StreamClosed { five_tuple, stream } => processor.handle_stream_closed(five_tuple, stream).await,
        Event::Refused { id } => processor.handle_refused(id).await,
    }
}

async fn until(timeout: Option<tokio::time::Instant>) {
    match timeout {
        Some(timeout) => sleep_until(timeout).await,
        None => std::future::pending().await,
    }
}
