//! What a judge met on its way, for people: only [`explain`](super::explain()) asks for it.

/// How a relation is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Rows are added, and perhaps those in their way changed.
    Insert,
    Write,
}

/// Names as written, each once, in the order met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) job: Vec<String>,
    pub(super) application: Vec<String>,
    pub(super) read: Vec<String>,
    pub(super) written: Vec<String>,
    pub(super) functions: Vec<String>,
    /// What is not proven to leave nothing on its backend.
    pub(super) unproven: Vec<String>,
}

impl Seen {
    pub(super) fn relation(&mut self, schema: Option<&str>, name: &str, access: Access, job: bool) {
        let name = full(schema, name);
        let of_access = match access {
            Access::Read => &mut self.read,
            Access::Insert | Access::Write => &mut self.written,
        };
        add(of_access, name.clone());
        add(if job { &mut self.job } else { &mut self.application }, name);
    }

    pub(super) fn function(&mut self, schema: Option<&str>, name: &str, job: bool) {
        let name = full(schema, name);
        if job {
            add(&mut self.job, format!("{name}()"));
        }
        add(&mut self.functions, name);
    }

    pub(super) fn job_object(&mut self, schema: Option<&str>, name: &str) {
        add(&mut self.job, full(schema, name));
    }
}

impl Seen {
    pub(super) fn unproven(&mut self, what: &str) {
        add(&mut self.unproven, what.to_owned());
    }
}

fn full(schema: Option<&str>, name: &str) -> String {
    schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"))
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}
