//! Memory per idle client, in user space: what the pooler's process grows by.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::{
    Plan,
    contender::{Contender, Kind},
    support::{Login, Postgres, Role},
};

const FEW: usize = 1_000;
const MANY: usize = 5_000;

pub(crate) fn run(plan: &Plan) {
    println!("\nMemory with idle clients (resident, not backed by a file)");
    println!(
        "| | none, kB | {FEW}, kB | {MANY}, kB | bytes a client beyond {FEW} | after a query each at once |"
    );
    println!("|---|---|---|---|---|---|");
    for kind in plan.contenders.iter().filter(|kind| **kind != Kind::Direct) {
        // A fresh server and pooler: memory that was once used is not all given back.
        let server = Postgres::start(Role::Primary);
        let contender = kind.start(&server, 20);
        let mut clients = Vec::new();
        let none = contender.memory_bytes();
        let few = grow(&contender, &mut clients, FEW);
        let many = grow(&contender, &mut clients, MANY);
        // All at once: what a pooler has taken for a crowd, it may keep.
        for client in &mut clients {
            ask(client);
        }
        for client in &mut clients {
            read_until_ready(client);
        }
        let asked = contender.memory_bytes();
        let each = |bytes: u64| bytes.saturating_sub(few) / (MANY - FEW) as u64;
        let [none, few_kb, many_kb] = [none, few, many].map(|bytes| bytes / 1024);
        let name = contender.name();
        println!("| {name} | {none} | {few_kb} | {many_kb} | {} | {} |", each(many), each(asked));
    }
}

/// Connects clients until there are so many; the pooler's memory then.
fn grow(contender: &Contender, clients: &mut Vec<TcpStream>, count: usize) -> u64 {
    while clients.len() < count {
        clients.push(log_in(contender.port()));
    }
    contender.memory_bytes()
}

fn log_in(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the pooler accepts connections");
    let mut message = BytesMut::new();
    let (user, _) = Login::Trust.credentials();
    frontend::startup_message([("user", user), ("database", "app")], &mut message).expect("no zero bytes");
    stream.write_all(&message).expect("the pooler reads");
    read_until_ready(&mut stream);
    stream
}

fn ask(stream: &mut TcpStream) {
    let mut message = BytesMut::new();
    frontend::query("SELECT 1", &mut message).expect("no zero bytes");
    stream.write_all(&message).expect("the pooler reads");
}

fn read_until_ready(stream: &mut TcpStream) {
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header).expect("the pooler answers");
        let [tag, length @ ..] = header;
        let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
        stream.read_exact(&mut body).expect("the pooler answers");
        match tag {
            b'Z' => return,
            b'E' => panic!("the pooler refuses: {}", String::from_utf8_lossy(&body)),
            _ => (),
        }
    }
}
