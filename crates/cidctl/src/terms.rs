//! RDF terms as CIDs: the SHA-256 of a term's canonical N-Triples text.
//!
//! The text is the canonical one (RDF 1.1 N-Triples §4, as `oxrdf` prints it), so that `"\u00E9"`
//! and `"é"`, or `"x"` and `"x"^^<http://www.w3.org/2001/XMLSchema#string>`, are one term with one
//! CID. A language tag counts in lower case. A blank node counts by its label as written: two files
//! that both say `_:b0` mean the same node to the store.

use cidstore_types::Cid;
use oxrdf::{Literal, Term};
use oxttl::NTriplesParser;
use sha2::{Digest, Sha256};

/// The CID of a term, given its canonical N-Triples text.
pub fn cid_of(text: &str) -> Cid {
    Cid(Sha256::digest(text.as_bytes()).into())
}

/// What a person may write where a CID is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermArg {
    /// What it stands for.
    pub cid: Cid,
    /// The canonical N-Triples text, where the argument was a term and not a CID.
    pub text: Option<String>,
}

/// Reads a CID in any text form, or a term:
///
/// | form | stands for |
/// |---|---|
/// | `E(1,2,3,4)`, `E(3,4)`, 64 hex digits | that CID |
/// | `<http://…>`, `"text"`, `"chat"@fr`, `"1"^^<…>`, `_:b0` | the term, as in N-Triples |
/// | `iri:http://…` | `<http://…>` |
/// | `text:anything` | `"anything"`, escaped as needed |
///
/// # Errors
/// What was found and what was expected, for a person.
pub fn parse_term(arg: &str) -> Result<TermArg, String> {
    if let Some(plain) = arg.strip_prefix("text:") {
        return Ok(of_term(&Literal::new_simple_literal(plain).into()));
    }
    if let Some(iri) = arg.strip_prefix("iri:") {
        return read_object(&format!("<{iri}>")).map(|term| of_term(&term));
    }
    if arg.starts_with(['<', '"']) || arg.starts_with("_:") {
        return read_object(arg).map(|term| of_term(&term));
    }
    Cid::parse(arg)
        .map(|cid| TermArg { cid, text: None })
        .map_err(|error| format!("{error}; or a term: <iri>, \"literal\", _:label, iri:…, text:…"))
}

/// As [`parse_term`], with `_` for "anything".
pub fn parse_bound(arg: &str) -> Result<Bound, String> {
    if arg == "_" { Ok(Bound(None)) } else { parse_term(arg).map(|term| Bound(Some(term.cid))) }
}

/// One part of a pattern: a CID, or `_` for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound(pub Option<Cid>);

fn of_term(term: &Term) -> TermArg {
    let text = term.to_string();
    TermArg { cid: cid_of(&text), text: Some(text) }
}

/// A term, read by the very parser that `import` uses: as the object of a statement.
fn read_object(text: &str) -> Result<Term, String> {
    let line = format!("<x:s> <x:p> {text} .");
    let mut statements = NTriplesParser::new().for_slice(line.as_bytes());
    match (statements.next(), statements.next()) {
        (Some(Ok(triple)), None) => Ok(triple.object),
        (Some(Err(error)), _) | (_, Some(Err(error))) => {
            Err(format!("{text:?} is not an N-Triples term: {}", error.message()))
        }
        _ => Err(format!("{text:?} is not one N-Triples term")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(arg: &str) -> String {
        parse_term(arg).unwrap().text.unwrap()
    }

    #[test]
    fn spellings_of_one_term_are_one_cid() {
        assert_eq!(text(r#""\u00E9""#), r#""é""#);
        assert_eq!(text(r#""x"^^<http://www.w3.org/2001/XMLSchema#string>"#), r#""x""#);
        assert_eq!(text(r#""x"@EN-gb"#), r#""x"@en-gb"#);
        assert_eq!(text("iri:http://a/b"), "<http://a/b>");
        assert_eq!(text("text:say \"hi\"\n"), r#""say \"hi\"\n""#);
        assert_eq!(text("_:b0"), "_:b0");
        // printf '"libc6"' | sha256sum
        assert_eq!(
            parse_term("text:libc6").unwrap().cid.to_hex(),
            "ec879aed72ce0ecb895ebc80559dee1a9650856a22c87d1403f891cbee5833c6"
        );
    }

    #[test]
    fn cids_are_taken_as_they_are_and_nonsense_is_refused() {
        assert_eq!(parse_term("E(3,4)").unwrap(), TermArg { cid: Cid::from_two_lanes([3, 4]), text: None });
        assert_eq!(parse_bound("_"), Ok(Bound(None)));
        for bad in [
            "libc6",
            "<http://a b>",
            "\"open",
            "<a",
            "iri:not an iri",
            "\"a\" \"b\"",
            "<x:a> . <x:b> <x:c> <x:d>",
            "",
        ] {
            assert!(parse_term(bad).is_err(), "{bad}");
        }
    }
}
