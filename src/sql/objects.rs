//! Which objects of a server's catalog are a job library's: by their whole names, as the catalog has them.

use super::rules::{Object, Rules};

impl Rules {
    /// Whether a table of this schema is a job table.
    pub fn is_job_table(&self, schema: &str, table: &str) -> bool {
        self.object(Object::Relation, Some(schema), table)
    }

    /// Whether a function of this schema is the library's.
    pub fn is_job_function(&self, schema: &str, function: &str) -> bool {
        self.object(Object::Function, Some(schema), function)
    }

    /// Whether a type of this schema is the library's.
    pub fn is_job_type(&self, schema: &str, name: &str) -> bool {
        self.object(Object::Type, Some(schema), name)
    }

    /// Whether everything in this schema is the library's.
    pub fn is_job_schema(&self, schema: &str) -> bool {
        self.schema(schema)
    }
}
