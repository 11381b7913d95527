//! The live page: files that are part of the program, so that it needs no others and no network but this server.

use hyper::{StatusCode, header::HeaderValue};

use super::answer::{self, Answer, Body};

/// Each path, its type and contents.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// The file at this path, if it is one of the page's.
pub(super) fn file(path: &str) -> Option<Answer> {
    let (_, content_type, contents) = FILES.iter().find(|(known, ..)| *known == path)?;
    let body = Body::Whole(Some(contents.as_bytes().into()));
    Some(answer::of_type(StatusCode::OK, HeaderValue::from_static(content_type), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_inline_or_from_elsewhere_and_no_text_becomes_markup() {
        for (path, _, contents) in FILES {
            for forbidden in
                ["http://", "https://", "//cdn", "<style", "style=", "onclick", "onload", "javascript:"]
            {
                let is_namespace = path == "/icon.svg" && forbidden == "http://";
                assert!(is_namespace || !contents.contains(forbidden), "{path} has {forbidden}");
            }
        }
        let script = FILES[2].2;
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
        {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
    }
}
