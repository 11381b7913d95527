//! Findings about pools: full, and by whom; held by an operator; out of pins; refusals that are over.

use std::time::Duration;

use super::{
    Cause, Severity,
    facts::{Facts, Holder, Pool, Reach, Who},
    found::{Found, pool_name},
    words,
};

/// Shorter waits are those of a pool that is used well.
const WAIT_LEAST: Duration = Duration::from_millis(250);

/// A transaction whose client does something else for longer than this is idle.
const IDLE_LEAST: Duration = Duration::from_secs(1);

/// A client that takes nothing for longer than this does not read.
const STALL_LEAST: Duration = Duration::from_secs(1);

/// Groups of holders that are told of.
const GROUPS: usize = 4;

/// Clients that are named by number.
const NUMBERS: usize = 5;

/// Reasons why a connection is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Blocked,
    Unread,
    IdleInTransaction,
    Pinned,
    Runs,
}

const USES: [Use; 5] = [Use::Blocked, Use::Unread, Use::IdleInTransaction, Use::Pinned, Use::Runs];

pub(super) fn found(facts: &Facts) -> Vec<Found> {
    let mut found = Vec::new();
    for pool in &facts.pools {
        let server = facts.servers.iter().find(|server| server.name == pool.server);
        let reach = server.map_or(Reach::Up, |server| server.reach);
        if let Some(held) = held(pool) {
            found.push(held);
            continue;
        }
        // What follows from a server that does not serve is told with it.
        if matches!(reach, Reach::Down | Reach::Full) {
            continue;
        }
        let told = full(facts, pool).or_else(|| slow_to_connect(pool, reach));
        let had_refusals = told.is_none();
        found.extend(told);
        found.extend(pins_full(pool));
        if had_refusals {
            found.extend(refused(facts, pool));
        }
    }
    found
}

fn held(pool: &Pool) -> Option<Found> {
    let name = pool_name(pool);
    let (title, next) = if pool.is_disabled {
        (
            format!("pool {name} is disabled on the console: whoever asks it gets an error"),
            format!("ENABLE {} on the console", pool.name),
        )
    } else if pool.is_paused {
        (format!("pool {name} is paused on the console"), format!("RESUME {} on the console", pool.name))
    } else {
        return None;
    };
    let is_wanted = pool.waiting > 0 || pool.is_disabled;
    let severity = if is_wanted { Severity::Harm } else { Severity::Risk };
    Some(Found::new(Cause::PoolHeld, severity, title).weighing(pool.waiting).evidence(waits(pool)).next(next))
}

/// Whether every place of it is taken.
const fn is_full(pool: &Pool) -> bool {
    pool.leased + pool.idle + pool.connecting + pool.closing >= pool.max_connections
}

fn full(facts: &Facts, pool: &Pool) -> Option<Found> {
    let waits_long = pool.waiting > 0 && pool.oldest_wait >= WAIT_LEAST;
    let refuses = pool.refused.full + pool.refused.timeout > 0;
    if !is_full(pool) || !(waits_long || (refuses && pool.leased >= pool.max_connections)) {
        return None;
    }
    let sorted = by_use(facts, pool);
    let (most, holders) = most_used(&sorted);
    let name = pool_name(pool);
    let of = format!("{} of {}", holders.len(), pool.max_connections);
    let (what, next) = told(most, &holders, pool);
    let title = format!("pool {name} is full of {what}: {of}");
    let mut found = Found::new(Cause::PoolFull, Severity::Harm, title)
        .weighing(pool.waiting)
        .evidence(waits(pool))
        .evidence(refusals(facts, pool));
    for (kind, holders) in &sorted {
        found = found.evidence(groups(*kind, holders));
    }
    Some(found.evidence(numbers(most, &holders)).next(next))
}

/// The holders of a pool by what keeps them.
fn by_use<'p>(facts: &Facts, pool: &'p Pool) -> Vec<(Use, Vec<&'p Holder>)> {
    let is_blocked =
        |holder: &Holder| facts.locks.iter().any(|lock| lock.pid == holder.pid && lock.server == pool.server);
    let use_of = |holder: &Holder| match holder {
        _ if is_blocked(holder) => Use::Blocked,
        Holder { stalled: Some(stalled), .. } if *stalled >= STALL_LEAST => Use::Unread,
        _ if holder.is_in_transaction() && holder.lasts >= IDLE_LEAST => Use::IdleInTransaction,
        Holder { pin: Some(_), phase: crate::backend::doing::Phase::Keeps, .. } => Use::Pinned,
        _ => Use::Runs,
    };
    let mut sorted: Vec<(Use, Vec<&Holder>)> = USES.map(|kind| (kind, Vec::new())).into();
    for holder in &pool.holders {
        let kind = use_of(holder);
        sorted.iter_mut().filter(|(other, _)| *other == kind).for_each(|(_, holders)| holders.push(holder));
    }
    sorted.retain(|(_, holders)| !holders.is_empty());
    sorted.sort_by_key(|(_, holders)| usize::MAX - holders.len());
    sorted
}

fn most_used<'p>(sorted: &[(Use, Vec<&'p Holder>)]) -> (Use, Vec<&'p Holder>) {
    sorted.first().cloned().unwrap_or((Use::Runs, Vec::new()))
}

/// The words for what a pool is full of, and what to do about it.
fn told(most: Use, holders: &[&Holder], pool: &Pool) -> (String, String) {
    let whose = common_name(holders);
    let name = &pool.name;
    match most {
        Use::Blocked => (
            "statements that wait for locks".to_owned(),
            "end what blocks them, which is told above or below".to_owned(),
        ),
        Use::Unread => (
            format!("answers that clients{whose} do not read"),
            "have them read faster, or less at a time (LIMIT, a cursor that is read to its end); KILL_CLIENT on the \
             console frees a connection"
                .to_owned(),
        ),
        Use::IdleInTransaction => (
            format!("transactions in which clients{whose} do nothing"),
            "have the application commit or roll back before it does something else (a request, a pause); KILL_CLIENT \
             on the console frees a connection, idle_in_transaction_session_timeout bounds such transactions"
                .to_owned(),
        ),
        Use::Pinned => (
            format!("pinned sessions{whose}"),
            format!(
                "have them release what pins them (see the reason), or put them into a pool of their own; \
                 pools.{name}.max_pinned bounds them, pools.{name}.pinned_idle_timeout ends those that idle while others wait"
            ),
        ),
        Use::Runs => (
            format!("running statements{whose}"),
            format!(
                "make the statements faster or fewer at once; only if the server has room for more, raise \
                 pools.{name}.max_connections"
            ),
        ),
    }
}

/// The application or user that most of them are of, if it is one.
fn common_name(holders: &[&Holder]) -> String {
    let Some(first) = holders.first() else { return String::new() };
    if holders.iter().all(|holder| holder.who == first.who) {
        format!(" of {}", words::who(&first.who))
    } else {
        String::new()
    }
}

fn waits(pool: &Pool) -> Option<String> {
    (pool.waiting > 0).then(|| {
        format!(
            "{}, the first for {} (max_waiting {}, wait_timeout {})",
            words::wait(pool.waiting, "client"),
            words::time(pool.oldest_wait),
            pool.max_waiting,
            words::time(pool.wait_timeout)
        )
    })
}

fn refusals(facts: &Facts, pool: &Pool) -> Vec<String> {
    let window = words::time(facts.window);
    let line = |count: u64, limit: String| {
        (count > 0).then(|| {
            format!("{} refused in the last {window}: {limit}", words::count(count as usize, "request"))
        })
    };
    let refused = pool.refused;
    [
        line(
            refused.full,
            format!("as many waited as may (pools.{}.max_waiting = {})", pool.name, pool.max_waiting),
        ),
        line(
            refused.timeout,
            format!(
                "they had waited for as long as may be (pools.{}.wait_timeout = {})",
                pool.name,
                words::time(pool.wait_timeout)
            ),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Holders of one use, by who they are and what they run.
fn groups(kind: Use, holders: &[&Holder]) -> Vec<String> {
    type Key<'h> = (&'h Who, Option<&'h str>, Option<&'static str>, &'static str);
    let mut groups: Vec<(Key<'_>, Vec<Duration>)> = Vec::new();
    for holder in holders {
        let key = (&holder.who, holder.text.as_deref(), holder.pin, holder.class);
        let lasts = if kind == Use::Unread { holder.stalled.unwrap_or(holder.lasts) } else { holder.lasts };
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, times)) => times.push(lasts),
            None => groups.push((key, vec![lasts])),
        }
    }
    groups.sort_by_key(|(_, times)| usize::MAX - times.len());
    let rest: usize = groups.iter().skip(GROUPS).map(|(_, times)| times.len()).sum();
    let line = |((who, text, pin, class), times): (Key<'_>, Vec<Duration>)| {
        let span = words::span(
            times.iter().min().copied().unwrap_or_default(),
            times.iter().max().copied().unwrap_or_default(),
        );
        let text = text.map(words::statement);
        let (what, verb) = match kind {
            Use::Blocked => (format!("class {class}, waiting for a lock for {span}"), ""),
            Use::Unread => (format!("class {class}, taking nothing of their answers for {span}"), ""),
            Use::IdleInTransaction => {
                (format!("class {class}, idle in a transaction for {span}"), "last ran ")
            }
            Use::Pinned => (format!("kept by {}, idle for {span}", pin.unwrap_or("unknown")), "last ran "),
            Use::Runs => (format!("class {class}, running for {span}"), ""),
        };
        let text = text.map_or_else(String::new, |text| format!(": {verb}{text}"));
        format!("{} x {}, {what}{text}", times.len(), words::who(who))
    };
    let mut lines: Vec<String> = groups.into_iter().take(GROUPS).map(line).collect();
    if rest > 0 {
        lines.push(format!("and {rest} others"));
    }
    lines
}

/// Numbers of clients that would have to go, those first that are at it for longest.
fn numbers(kind: Use, holders: &[&Holder]) -> Option<String> {
    if matches!(kind, Use::Blocked | Use::Runs) {
        return None;
    }
    let mut oldest: Vec<&&Holder> = holders.iter().filter(|holder| holder.client.is_some()).collect();
    oldest.sort_by_key(|holder| std::cmp::Reverse(holder.lasts));
    let numbers: Vec<String> = oldest
        .iter()
        .take(NUMBERS)
        .filter_map(|holder| holder.client.map(|client| client.to_string()))
        .collect();
    match numbers.as_slice() {
        [] => None,
        [one] => Some(format!("it is client {one}")),
        _ => Some(format!("the longest are clients {}", numbers.join(", "))),
    }
}

/// Nobody waits for a place, but for a connection that is being opened.
fn slow_to_connect(pool: &Pool, reach: Reach) -> Option<Found> {
    if pool.waiting == 0 || pool.oldest_wait < WAIT_LEAST || is_full(pool) || reach == Reach::Slow {
        return None;
    }
    let title = format!(
        "server {} is slow to let connections of pool {} in: {} being opened",
        words::name(&pool.server),
        words::name(&pool.name),
        words::count(pool.connecting, "connection")
    );
    Some(
        Found::new(Cause::ServerSlow, Severity::Harm, title)
            .weighing(pool.waiting)
            .evidence(waits(pool))
            .next(format!(
                "look at the load of its machine; pools.{}.min_connections keeps connections open",
                pool.name
            )),
    )
}

fn pins_full(pool: &Pool) -> Option<Found> {
    if !pool.pins_wanted && pool.refused.pins == 0 {
        return None;
    }
    let severity = if pool.pins_wanted || pool.pinned >= pool.max_pinned as u64 {
        Severity::Harm
    } else {
        Severity::Risk
    };
    let title = format!(
        "pool {} has no place for more pinned sessions: {} of {}",
        pool_name(pool),
        pool.pinned,
        pool.max_pinned
    );
    let pinned: Vec<&Holder> = pool.holders.iter().filter(|holder| holder.pin.is_some()).collect();
    let refused = (pool.refused.pins > 0).then(|| {
        format!("{} refused for it in the last minute", words::count(pool.refused.pins as usize, "statement"))
    });
    let wanted =
        pool.pins_wanted.then(|| "statements that would pin their session wait for a place".to_owned());
    Some(
        Found::new(Cause::PinsFull, severity, title)
            .evidence(wanted)
            .evidence(refused)
            .evidence(groups(Use::Pinned, &pinned))
            .evidence(numbers(Use::Pinned, &pinned))
            .next(format!(
                "have the sessions release what pins them (see the reason), or raise pools.{}.max_pinned",
                pool.name
            )),
    )
}

/// Requests were refused, and nobody waits any more.
fn refused(facts: &Facts, pool: &Pool) -> Option<Found> {
    let evidence = refusals(facts, pool);
    if evidence.is_empty() {
        return None;
    }
    let title = format!("pool {} refused requests, and has room again", pool_name(pool));
    Some(
        Found::new(Cause::Refusals, Severity::Risk, title)
            .weighing((pool.refused.full + pool.refused.timeout) as usize)
            .evidence(evidence)
            .next("ask again while it happens: then this says what fills the pool"),
    )
}
