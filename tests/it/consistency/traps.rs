//! Each form of write by itself, read at once from another connection while replicas stand still.

use super::{
    forms::{self, Form, Kind},
    reads::{READS, Read},
    session::Session,
    world::{KEY, Mode, World},
};

/// Two sessions, one of which reads what the other writes, by driver and raw.
struct Trap<'a> {
    world: &'a World,
    writers: [Session; 2],
    readers: [Session; 2],
    wrong: Vec<String>,
}

impl<'a> Trap<'a> {
    async fn new(world: &'a World) -> Self {
        let writers = [world.session(false).await, world.session(true).await];
        let readers = [world.session(false).await, world.session(true).await];
        Self { world, writers, readers, wrong: Vec::new() }
    }

    /// Writes in this form while replicas stand still, and reads in every form that fits.
    async fn spring(&mut self, form: &Form, version: u64) {
        if form.kind == Kind::AtPrimary {
            // What names it may be read elsewhere once it is there, such as by a function: it is not.
            self.world.set_replay(false).await;
            self.write_and_read(form, version).await;
            return self.world.set_replay(true).await;
        }
        self.wait_for_replica(form, version - 1).await;
        self.world.set_replay(false).await;
        // They stand still with all there is, so they may be read.
        let before = self.read(Read::Plain, form).await;
        if !before.1 {
            self.wrong.push(format!("{}: replicas have all, and are not read before the write", form.name));
        }
        self.write_and_read(form, version).await;
        self.world.set_replay(true).await;
        self.wait_for_replica(form, version).await;
    }

    async fn write_and_read(&mut self, form: &Form, version: u64) {
        let writer = &mut self.writers[usize::from(form.is_raw())];
        let written = writer.write(form, KEY, version).await;
        if let Err(failed) = written {
            self.wrong.push(format!("{}: {failed:?}", form.name));
        }
        for read in READS.into_iter().filter(|read| read.fits(form)) {
            let (found, on_replica) = self.read(read, form).await;
            if found != version || on_replica {
                let place = if on_replica { "a replica" } else { "the primary" };
                self.wrong
                    .push(format!("{}: {version} is written, {read:?} finds {found} on {place}", form.name));
            }
        }
        let writer = &mut self.writers[usize::from(form.is_raw())];
        writer.tidy(form, KEY, version).await.expect("nothing is in its way");
    }

    async fn read(&mut self, read: Read, form: &Form) -> (u64, bool) {
        let reader = &mut self.readers[usize::from(!read.fits_session(false))];
        match read.run(reader, form, KEY, "").await {
            Ok(found) => (found.version, found.on_replica),
            Err(failed) => {
                self.wrong.push(format!("{read:?} of {}: {failed:?}", form.name));
                (u64::MAX, false)
            }
        }
    }

    /// Waits until a replica is read, which has this version then.
    async fn wait_for_replica(&mut self, form: &Form, version: u64) {
        let found = self.world.wait_until_read(&mut self.readers[0], form).await;
        if found != version {
            self.wrong
                .push(format!("{}: {version} is written, a replica that is read has {found}", form.name));
        }
    }
}

/// All forms of a group, twice each: what is prepared or remembered the first time is met the second time.
async fn every_form(group: &[Form]) {
    let world = World::start(Mode::Tables, 1).await;
    let mut trap = Trap::new(&world).await;
    for form in group.iter().filter(|form| form.kind != Kind::Unknown) {
        for version in 1..=2 {
            trap.spring(form, version).await;
        }
    }
    let wrong = &trap.wrong;
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

mod every_form_of_write_is_seen {
    use super::{super::hidden, every_form, forms};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_statements() {
        every_form(forms::STATEMENTS).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_the_protocol() {
        every_form(forms::PROTOCOL).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_transactions() {
        every_form(forms::TRANSACTIONS).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_objects() {
        every_form(forms::OBJECTS).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_code() {
        every_form(forms::CODE).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_what_no_text_names() {
        every_form(hidden::HIDDEN).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_definitions() {
        every_form(hidden::DEFINITIONS).await;
    }
}
