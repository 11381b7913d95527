//! Two machines out of one: each has half of the CPUs, and what runs on one does not take the other's time.
//!
//! A job database is a server on a machine of its own, and so are workers. Where all of them run on the CPUs of one
//! machine, what is measured is how these are shared out, not what users would see. So everything of the users' way is
//! confined to one half, and the workers and the job database to the other one, in every set-up alike. Any user may confine
//! processes of their own. Knows nothing of what runs there.

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// Users, Bulkhead, and the primary.
    Users,
    /// Workers, the job database, and the replica.
    Workers,
}

/// Both, if this machine can be halved.
#[derive(Clone, Debug)]
pub(super) struct Machines(Option<[system::Cpus; 2]>);

/// The thread is on one of the machines, and what it starts will be; dropped, the thread is back.
#[derive(Debug)]
pub(super) struct Entered(Option<system::Cpus>);

impl Machines {
    /// Halves the CPUs that this process may use. Only on Linux, and with two of them at least.
    pub(super) fn new() -> Self {
        Self(system::own().filter(system::enter).and_then(|cpus| system::halves(&cpus)))
    }

    /// Moves the calling thread to one of them.
    pub(super) fn enter(&self, machine: Machine) -> Entered {
        let Some(halves) = &self.0 else { return Entered(None) };
        let before = system::own();
        let is_there = system::enter(&halves[machine as usize]);
        Entered(before.filter(|_| is_there))
    }

    /// How both are modelled, for people.
    pub(super) fn words(&self) -> &'static str {
        if self.0.is_some() {
            "Two machines are modelled, in every column: one half of the CPUs is for users, Bulkhead and the primary, the\n  \
             other one for workers and the job database."
        } else {
            "This machine cannot be halved: all clients and servers share its CPUs, which two machines would not."
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            system::enter(before);
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) type Cpus = CpuSet;

    /// The CPUs that the calling thread may use.
    pub(super) fn own() -> Option<Cpus> {
        sched_getaffinity(None).ok()
    }

    /// Whether the calling thread uses only these from now on.
    pub(super) fn enter(cpus: &Cpus) -> bool {
        sched_setaffinity(None, cpus).is_ok()
    }

    pub(super) fn halves(cpus: &Cpus) -> Option<[Cpus; 2]> {
        let count = cpus.count() as usize;
        let numbers: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|number| cpus.is_set(*number)).collect();
        let set = |numbers: &[usize]| {
            let mut set = CpuSet::new();
            for number in numbers {
                set.set(*number);
            }
            set
        };
        let (one, other) = numbers.split_at(count / 2);
        (count >= 2).then(|| [set(one), set(other)])
    }

    #[test]
    fn halves_share_no_cpu() {
        let mut cpus = CpuSet::new();
        assert!(halves(&cpus).is_none());
        cpus.set(3);
        assert!(halves(&cpus).is_none());
        cpus.set(5);
        cpus.set(8);
        let [one, other] = halves(&cpus).expect("there are three");
        assert!(one.is_set(3) && one.count() == 1);
        assert!(other.is_set(5) && other.is_set(8) && other.count() == 2);
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) type Cpus = ();

    pub(super) fn own() -> Option<Cpus> {
        None
    }

    pub(super) fn enter((): &Cpus) -> bool {
        false
    }

    pub(super) fn halves((): &Cpus) -> Option<[Cpus; 2]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_comes_back_to_where_it_was() {
        let machines = Machines::new();
        let Some(halves) = &machines.0 else { return };
        let before = system::own();
        let entered = machines.enter(Machine::Workers);
        assert_eq!(system::own(), Some(halves[1]));
        drop(entered);
        assert_eq!(system::own(), before);
    }
}
