//! What a PDF may make its reader do.
//!
//! A stream of a few kilobytes can unpack to gigabytes, pieces of a page can contain themselves, and a hundred short ones
//! can be drawn a million times over. All of that is found here before the library follows it.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
};

use flate2::read::{DeflateDecoder, ZlibDecoder};
use pdf_extract::{Dictionary, Document, Object, ObjectId, Stream};

/// Bytes that one stream may unpack to.
const LARGEST_STREAM: u64 = 24 << 20;
/// Bytes that all streams of a file together may unpack to.
const LARGEST_SUM: u64 = 1 << 30;
/// Bytes of a stream packed by LZW, whose ratio is at most 1,366.
const LARGEST_LZW: usize = 256 << 10;
/// Bytes of a row of numbers that a predictor may ask for.
const LARGEST_ROW: i64 = 1 << 20;
/// Bytes of instructions that a page may have, each piece counted as often as it is drawn.
const LARGEST_PAGE: u64 = 64 << 20;
/// Pieces within pieces; nodes above a page.
const DEEPEST: usize = 24;

/// Keys under which findings are kept in a stream's dictionary. Those of a file are overwritten.
const BYTES: &[u8] = b"LlocoBytes";
const DRAWS: &[u8] = b"LlocoDraws";

type Result<T, E = String> = std::result::Result<T, E>;

/// Looks at the packed streams before the library has read anything: its tables unpack while it loads.
pub(super) fn check_bytes(bytes: &[u8]) -> Result<()> {
    let mut sum = 0;
    let mut place = 0;
    while let Some(found) = bytes.get(place..).and_then(|rest| find(rest, b"stream")) {
        let start = place + found + b"stream".len();
        let packed = bytes.get(start..).unwrap_or_default();
        let blanks = packed.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let packed = packed.get(blanks..).unwrap_or_default();
        sum += unpacked(ZlibDecoder::new(packed))?;
        // Packed twice.
        unpacked(ZlibDecoder::new(ZlibDecoder::new(packed)))?;
        if sum > LARGEST_SUM {
            return Err(format!("it unpacks to more than {LARGEST_SUM} bytes"));
        }
        place = start;
    }
    Ok(())
}

/// Called for each object while the document loads: empties pictures and streams that unpack to too much, and notes down
/// what the others come to.
pub(super) fn examine(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    if let Object::Stream(stream) = object {
        let picture = stream.dict.get(b"Subtype").and_then(Object::as_name).is_ok_and(|name| name == b"Image");
        let found = if picture { Ok((0, 0)) } else { measure(stream) };
        let (bytes, draws) = found.unwrap_or((u64::MAX, 0));
        if picture || bytes == u64::MAX {
            stream.set_plain_content(Vec::new());
        }
        stream.dict.set(BYTES, i64::try_from(bytes).unwrap_or(i64::MAX));
        stream.dict.set(DRAWS, draws);
    }
    Some((id, object.clone()))
}

/// Bytes that a stream unpacks to, and how often it draws another.
fn measure(stream: &Stream) -> Result<(u64, i64)> {
    let filters = stream.filters().unwrap_or_default();
    let packed = |name: &&&[u8]| matches!(**name, b"FlateDecode" | b"LZWDecode");
    if filters.iter().filter(packed).count() > 1 || filters.len() > 4 || row(&stream.dict) > LARGEST_ROW {
        return Err("packed twice".into());
    }
    let mut content = stream.content.clone();
    for filter in filters {
        content = match filter {
            b"FlateDecode" => inflate(&content)?,
            b"LZWDecode" if content.len() > LARGEST_LZW => return Err("too long".into()),
            b"LZWDecode" | b"ASCII85Decode" => alone(filter, content)?,
            // The library goes no further either.
            _ => break,
        };
    }
    if content.len() as u64 > LARGEST_STREAM {
        return Err("too long".into());
    }
    let draws = content.windows(2).filter(|pair| *pair == b"Do").count();
    Ok((content.len() as u64, i64::try_from(draws).unwrap_or(i64::MAX)))
}

fn inflate(packed: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let whole = ZlibDecoder::new(packed).take(LARGEST_STREAM + 1).read_to_end(&mut out);
    if whole.is_err() && out.is_empty() {
        drop(DeflateDecoder::new(packed.get(2..).unwrap_or_default()).take(LARGEST_STREAM + 1).read_to_end(&mut out));
    }
    if out.len() as u64 > LARGEST_STREAM { Err("too long".into()) } else { Ok(out) }
}

/// Undoes one filter.
fn alone(filter: &[u8], content: Vec<u8>) -> Result<Vec<u8>> {
    let mut dictionary = Dictionary::new();
    dictionary.set("Filter", Object::Name(filter.to_vec()));
    Stream::new(dictionary, content).decompressed_content().map_err(|e| e.to_string())
}

/// Bytes of a row that the stream's predictor works on.
fn row(dictionary: &Dictionary) -> i64 {
    let Ok(parameters) = dictionary.get(b"DecodeParms").and_then(Object::as_dict) else { return 0 };
    let number = |key: &[u8]| parameters.get(key).and_then(Object::as_i64).unwrap_or(1).clamp(1, i64::MAX);
    number(b"Columns").saturating_mul(number(b"Colors")).saturating_mul(number(b"BitsPerComponent"))
}

/// Bytes that a packed stream unpacks to, as far as it is whole.
fn unpacked(stream: impl Read) -> Result<u64> {
    let mut bounded = stream.take(LARGEST_STREAM * 4);
    let mut counter = Counter(0);
    drop(io::copy(&mut bounded, &mut counter));
    match bounded.limit() {
        0 => Err(format!("a stream in it unpacks to more than {} bytes", LARGEST_STREAM * 4)),
        _ => Ok(counter.0),
    }
}

struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Refuses a loaded document whose pages would take too much.
pub(super) fn check(document: &mut Document) -> Result<()> {
    let too_large = document.objects.values().any(|object| {
        let Object::Stream(stream) = object else { return false };
        // Fonts in the file are not needed for its text, or they are missed when they are.
        number(stream, BYTES) == u64::MAX >> 1 && !stream.dict.has(b"Length1")
    });
    if too_large {
        return Err(format!("a stream in it unpacks to more than {LARGEST_STREAM} bytes"));
    }
    // A piece without resources would use its caller's, among which it may be itself.
    for object in document.objects.values_mut() {
        if let Object::Stream(stream) = object
            && !stream.dict.has(b"Resources")
        {
            stream.dict.set("Resources", Dictionary::new());
        }
    }
    let mut costs = HashMap::new();
    for (page, id) in document.get_pages() {
        let contents = document.get_page_contents(id);
        let streams = || contents.iter().filter_map(|id| document.get_object(*id).and_then(Object::as_stream).ok());
        let bytes: u64 = streams().map(|stream| number(stream, BYTES)).sum();
        let draws: u64 = streams().map(|stream| number(stream, DRAWS)).sum();
        let mut worst = 0;
        for resources in resources(document, id)? {
            worst = worst.max(worst_piece(document, resources, &mut costs, &mut HashSet::new())?);
        }
        if bytes.saturating_add(draws.saturating_mul(worst)) > LARGEST_PAGE {
            return Err(format!("page {page} takes more than {LARGEST_PAGE} bytes of instructions"));
        }
    }
    Ok(())
}

/// What of a page and of the nodes above it may be its resources.
fn resources(document: &Document, page: ObjectId) -> Result<Vec<&Dictionary>> {
    let mut found = Vec::new();
    let mut node = document.get_dictionary(page).map_err(|e| e.to_string())?;
    for _ in 0..DEEPEST {
        found.extend(node.get(b"Resources").ok().and_then(|resources| dictionary(document, resources)));
        match node.get(b"Parent").and_then(Object::as_reference).and_then(|id| document.get_dictionary(id)) {
            Ok(parent) => node = parent,
            Err(_) => return Ok(found),
        }
    }
    Err("its pages hang on themselves".into())
}

/// The most bytes of instructions that drawing one of these resources takes.
fn worst_piece(
    document: &Document,
    resources: &Dictionary,
    costs: &mut HashMap<ObjectId, u64>,
    path: &mut HashSet<ObjectId>,
) -> Result<u64> {
    let pieces = resources.get(b"XObject").ok().and_then(|pieces| dictionary(document, pieces));
    let mut worst = 0;
    for (_, piece) in pieces.into_iter().flat_map(Dictionary::iter) {
        let Ok((Some(id), Object::Stream(stream))) = document.dereference(piece) else { continue };
        if let Some(&known) = costs.get(&id) {
            worst = worst.max(known);
            continue;
        }
        if path.len() == DEEPEST || !path.insert(id) {
            return Err("a piece of a page contains itself".into());
        }
        let mut cost = number(stream, BYTES);
        if let Some(own) = stream.dict.get(b"Resources").ok().and_then(|own| dictionary(document, own)) {
            let inner = worst_piece(document, own, costs, path)?;
            cost = cost.saturating_add(number(stream, DRAWS).saturating_mul(inner.max(16)));
        }
        path.remove(&id);
        costs.insert(id, cost);
        worst = worst.max(cost);
    }
    Ok(worst)
}

fn dictionary<'a>(document: &'a Document, object: &'a Object) -> Option<&'a Dictionary> {
    document.dereference(object).ok()?.1.as_dict().ok()
}

/// What [`examine`] has noted down.
fn number(stream: &Stream, key: &[u8]) -> u64 {
    stream.dict.get(key).and_then(Object::as_i64).map_or(0, |number| number.unsigned_abs())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
