//! The client's own map, in either encoding, as JSON.

use super::fault::{Fault, Result};
use super::token::{Source, Token};
use serde_json::{Map, Number, Value};

/// Reads a map of anything that JSON has a form for. Integer keys become decimal text, as Python's
/// `json` writes them; binary data, extensions and NaN have no form and are refused.
pub(crate) fn read<'a>(source: &mut impl Source<'a>) -> Result<Map<String, Value>> {
    match value(source)? {
        Value::Object(map) => Ok(map),
        other => Err(Fault::malformed(format!("{other}: expected a map"))),
    }
}

/// Bounded recursion: the source refuses to go deeper than the limit of a request.
fn value<'a, S: Source<'a>>(source: &mut S) -> Result<Value> {
    Ok(match source.next()? {
        Token::Nil => Value::Null,
        Token::Bool(value) => value.into(),
        Token::Uint(value) => value.into(),
        Token::Int(value) => value.into(),
        Token::Float(value) => {
            let number = Number::from_f64(value);
            number.ok_or_else(|| Fault::malformed(format!("{value} has no JSON form")))?.into()
        }
        Token::Huge(digits) => {
            let number = digits.parse().ok().and_then(Number::from_f64);
            number.ok_or_else(|| Fault::malformed("the number is out of range"))?.into()
        }
        Token::Str(text) => text.into_owned().into(),
        Token::Array(mut entries) => {
            let mut array = Vec::new();
            while source.more(&mut entries)? {
                array.push(value(source).map_err(|fault| fault.at(array.len()))?);
            }
            array.into()
        }
        Token::Map(mut entries) => {
            let mut map = Map::new();
            while source.more(&mut entries)? {
                let Some(key) = source.key()? else {
                    return Err(Fault::malformed(
                        "a key that is neither text nor an integer has no JSON form",
                    ));
                };
                let value = value(source).map_err(|fault| fault.within(&key))?;
                if map.insert(key.to_string(), value).is_some() {
                    return Err(Fault::malformed("the key is there twice").within(&key));
                }
            }
            map.into()
        }
        other => {
            return Err(Fault::malformed(format!("{} has no JSON form: send text", other.kind())));
        }
    })
}
