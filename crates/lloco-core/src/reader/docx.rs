//! DOCX: a zip archive with the text as XML.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
};

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesRef, BytesStart, Event},
};
use zip::ZipArchive;

use super::{FileText, PAGE_END, title};

/// Bytes that the XML of a document may unpack to.
const LARGEST_XML: u64 = 256 << 20;
/// The same for the file of properties, of which only the title is wanted.
const LARGEST_PROPERTIES: u64 = 1 << 20;

type Result<T, E = String> = std::result::Result<T, E>;

pub(super) fn read(file: File) -> Result<FileText> {
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| format!("it is no zip archive: {e}"))?;
    let properties = match archive.by_name("docProps/core.xml") {
        Ok(part) => element(part.take(LARGEST_PROPERTIES), b"title")?,
        Err(_) => None,
    };
    let part = archive.by_name("word/document.xml").map_err(|e| format!("`word/document.xml`: {e}"))?;
    let mut part = part.take(LARGEST_XML + 1);
    let mut body = Body::default();
    body.read(BufReader::new(&mut part))?;
    if part.limit() == 0 {
        return Err(format!("its text unpacks to more than {LARGEST_XML} bytes"));
    }
    let text = body.text.trim_matches(['\n', ' ', '\t']).to_owned();
    if text.trim().is_empty() {
        return Err("there is no text in it".into());
    }
    Ok(FileText { text, title: properties.or(body.title) })
}

/// The document's text as it comes together.
#[derive(Default)]
struct Body {
    text: String,
    /// The first paragraph in the style `Title`.
    title: Option<String>,
    /// How many elements of each kind are open.
    cells: usize,
    runs: usize,
    texts: usize,
    /// Copies for programs that cannot show the original.
    fallbacks: usize,
    /// Where the current paragraph begins.
    paragraph: usize,
    is_title: bool,
}

impl Body {
    fn read(&mut self, xml: impl BufRead) -> Result<()> {
        events(xml, |event| {
            match event {
                Event::Start(tag) => self.open(&tag),
                Event::Empty(tag) => {
                    self.open(&tag);
                    self.close(tag.local_name().as_ref());
                }
                Event::End(tag) => self.close(tag.local_name().as_ref()),
                Event::Text(text) => self.push(&text.xml_content(XmlVersion::Implicit1_0)),
                Event::CData(text) => self.push(&text.xml_content(XmlVersion::Implicit1_0)),
                Event::GeneralRef(reference) => {
                    if let Some(c) = resolve(&reference) {
                        self.push(c.encode_utf8(&mut [0; 4]));
                    }
                }
                _ => {}
            }
            true
        })
    }

    fn open(&mut self, tag: &BytesStart<'_>) {
        let name = tag.local_name();
        match name.as_ref() {
            "Fallback" => self.fallbacks += 1,
            _ if self.fallbacks > 0 => {}
            "p" => self.paragraph = self.text.len(),
            "pStyle" => self.is_title |= attribute(tag, "val").as_deref() == Some("Title"),
            "tc" => self.cells += 1,
            "r" => self.runs += 1,
            "t" => self.texts += 1,
            // The same names describe paragraphs; only those within a run are text.
            "tab" if self.runs > 0 => self.text.push('\t'),
            "cr" if self.runs > 0 => self.text.push('\n'),
            "noBreakHyphen" if self.runs > 0 => self.text.push('-'),
            "br" if self.runs > 0 => match attribute(tag, "type").as_deref() {
                Some("page") => self.text.push(PAGE_END),
                _ => self.text.push('\n'),
            },
            // Where the writing program last broke the page; behind a break of the author's it tells nothing new.
            "lastRenderedPageBreak" if self.runs > 0 && !self.begins_page() => self.text.push(PAGE_END),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "Fallback" => self.fallbacks = self.fallbacks.saturating_sub(1),
            _ if self.fallbacks > 0 => {}
            "p" => {
                if self.is_title && self.title.is_none() {
                    self.title = self.text.get(self.paragraph..).and_then(title);
                }
                self.is_title = false;
                self.text.push_str(if self.cells > 0 { " " } else { "\n\n" });
            }
            "tc" => {
                self.cells = self.cells.saturating_sub(1);
                self.text.push('\t');
            }
            "tr" => self.text.push('\n'),
            "r" => self.runs = self.runs.saturating_sub(1),
            "t" => self.texts = self.texts.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether nothing stands on the last page yet.
    fn begins_page(&self) -> bool {
        self.text.trim_end_matches([' ', '\n', '\t']).ends_with(PAGE_END)
    }

    fn push(&mut self, text: &str) {
        if self.texts > 0 && self.fallbacks == 0 {
            self.text.push_str(text);
        }
    }
}

/// The text of the first element of this name.
fn element(xml: impl Read, name: &[u8]) -> Result<Option<String>> {
    let mut inside = false;
    let mut found = String::new();
    events(BufReader::new(xml), |event| {
        match event {
            Event::Start(tag) => inside |= tag.local_name().as_ref().as_bytes() == name,
            Event::End(_) if inside => return false,
            Event::Text(text) if inside => found.push_str(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::GeneralRef(reference) if inside => found.extend(resolve(&reference)),
            _ => {}
        }
        true
    })?;
    Ok(title(&found))
}

/// Hands the events of an XML document to `take` until it says no.
fn events(xml: impl BufRead, mut take: impl FnMut(Event<'_>) -> bool) -> Result<()> {
    let mut reader = Reader::from_reader(xml);
    let mut buffer = Vec::new();
    loop {
        let place = reader.buffer_position();
        match reader.read_event_into(&mut buffer).map_err(|e| format!("its XML is broken at byte {place}: {e}"))? {
            Event::Eof => return Ok(()),
            Event::DocType(_) => return Err("its XML declares a document type, which no DOCX does".into()),
            event => {
                if !take(event) {
                    return Ok(());
                }
            }
        }
        buffer.clear();
    }
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let attributes = tag.attributes().flatten();
    let mut named = attributes.filter(|attribute| attribute.key.local_name().as_ref() == name);
    named.next().map(|attribute| attribute.value.to_string())
}

/// The character that a reference stands for: by number, or one of the five names of XML.
fn resolve(reference: &BytesRef<'_>) -> Option<char> {
    if let Ok(Some(c)) = reference.resolve_char_ref() {
        return Some(c);
    }
    match reference.xml_content(XmlVersion::Implicit1_0).as_ref() {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    }
}
