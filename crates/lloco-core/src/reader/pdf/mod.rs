//! PDF: the text page by page, in the order in which it is drawn.

use std::{
    fmt::Display,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use pdf_extract::{Document, LoadOptions, Object, PlainTextOutput, output_doc_page};

use super::{FileText, PAGE_END, title};

mod limits;

/// Bytes of text that a page may have.
const LARGEST_PAGE: usize = 16 << 20;

type Result<T, E = String> = std::result::Result<T, E>;

pub(super) fn read(bytes: &[u8]) -> Result<FileText> {
    let head = bytes.get(..bytes.len().min(1024)).unwrap_or_default();
    if !head.windows(5).any(|window| window == b"%PDF-") {
        return Err("it does not begin as a PDF does".into());
    }
    if bytes.windows(8).any(|window| window == b"/Encrypt") {
        return Err("it is encrypted: save it without a password first".into());
    }
    limits::check_bytes(bytes)?;
    let mut document = contain("it", || {
        Document::load_mem_with_options(bytes, LoadOptions::with_filter(limits::examine)).map_err(|e| e.to_string())
    })?;
    if document.is_encrypted() {
        return Err("it is encrypted: save it without a password first".into());
    }
    contain("it", || limits::check(&mut document))?;
    let mut text = String::new();
    for &page in document.get_pages().keys() {
        text.push_str(&page_text(&document, page)?);
        text.push(PAGE_END);
    }
    if text.chars().all(|c| c.is_whitespace() || c == PAGE_END) {
        return Err("there is no text in it: if its pages are pictures, run them through OCR first".into());
    }
    Ok(FileText { text, title: document_title(&document) })
}

fn page_text(document: &Document, page: u32) -> Result<String> {
    contain(format_args!("page {page}"), || {
        let mut out = Bounded(Vec::new());
        {
            let out: &mut dyn io::Write = &mut out;
            let mut output = PlainTextOutput::new(out);
            output_doc_page(document, &mut output, page).map_err(|e| format!("page {page}: {e}"))?;
        }
        let text = String::from_utf8_lossy(&out.0);
        Ok(text.replace(PAGE_END, " ").trim_matches('\n').to_owned() + "\n")
    })
}

/// Runs the PDF library, which panics on much that a PDF should not hold: that becomes an error.
fn contain<T>(what: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let said: String = said.unwrap_or("no reason given").chars().take(200).collect();
        Err(format!("{what} cannot be read: {said}"))
    })
}

/// What a page's text is written to.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST_PAGE {
            return Err(io::Error::other(format!("a page of more than {LARGEST_PAGE} bytes of text")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The title in the file's information.
fn document_title(document: &Document) -> Option<String> {
    let info = document.trailer.get(b"Info").ok()?;
    let (_, info) = document.dereference(info).ok()?;
    let (_, value) = document.dereference(info.as_dict().ok()?.get(b"Title").ok()?).ok()?;
    let Object::String(bytes, _) = value else { return None };
    let text = match bytes.strip_prefix(&[0xFE, 0xFF]) {
        Some(wide) => {
            let units = wide.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        None => match std::str::from_utf8(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)) {
            Ok(text) => text.to_owned(),
            // The encoding of old files, which equals Latin-1 for most letters.
            Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
        },
    };
    title(&text)
}
