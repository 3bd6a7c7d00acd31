//! A client's view of an answer: its head, and its body without framing. Written for the benchmark alone, so that no peer is
//! judged by its own parser.

/// How far an answer has been read.
pub struct Answer {
    /// It may end by close.
    endless: bool,
    head: Vec<u8>,
    body: Body,
    /// Where a stream goes on behind what was answered, as a server of streams tells it.
    pub next_offset: Option<String>,
    /// It told that there is no more.
    pub up_to_date: bool,
}

enum Body {
    /// The head is not complete yet.
    Head,
    /// It ends when the connection does.
    Endless,
    /// This many bytes are missing.
    Length(usize),
    /// In chunks.
    Chunked(Chunk),
    /// All of it was read.
    Ended,
}

#[derive(Clone, Copy)]
enum Chunk {
    /// Within the size line; the size so far.
    Size(usize),
    /// This many bytes of the chunk are missing, and the CR LF behind them.
    Data(usize),
    /// Within the line end behind a chunk: this many bytes of it are missing.
    End(usize),
    /// Behind the last chunk: the line read so far is this long.
    Trailer(usize),
}

impl Answer {
    /// Nothing read.
    pub fn new() -> Answer {
        Answer { endless: false, head: Vec::new(), body: Body::Head, next_offset: None, up_to_date: false }
    }

    /// Nothing read, of an answer that may end with its connection.
    pub fn endless() -> Answer {
        Answer { endless: true, ..Answer::new() }
    }

    /// Whether it was read to its end.
    pub fn ended(&self) -> bool {
        matches!(self.body, Body::Ended)
    }

    /// Whether its head is complete.
    pub fn begun(&self) -> bool {
        !matches!(self.body, Body::Head)
    }

    /// Reads on; `payload` gets what belongs to the body.
    pub fn read<'b>(
        &mut self,
        mut bytes: &'b [u8],
        mut payload: impl FnMut(&'b [u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            match &mut self.body {
                Body::Ended => return Err(format!("{} bytes behind the answer", bytes.len())),
                Body::Head => bytes = self.read_head(bytes)?,
                Body::Endless => {
                    payload(bytes)?;
                    return Ok(());
                }
                Body::Length(missing) => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(*missing));
                    payload(piece)?;
                    *missing -= piece.len();
                    bytes = rest;
                    if *missing == 0 {
                        self.body = Body::Ended;
                    }
                }
                Body::Chunked(chunk) => {
                    let (ended, piece, rest) = chunk.step(bytes)?;
                    payload(piece)?;
                    bytes = rest;
                    if ended {
                        self.body = Body::Ended;
                    }
                }
            }
        }
        Ok(())
    }

    fn read_head<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], String> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else { return Ok(&[]) };
        let head = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
        let status = head.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        if !matches!(status, "200" | "201" | "202" | "204") {
            return Err(format!("answered {:?}", head.lines().next().unwrap_or_default()));
        }
        let field = |name: &str| {
            head.lines().skip(1).find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        self.body = match (field("transfer-encoding"), field("content-length").map(str::parse)) {
            _ if status == "204" => Body::Ended,
            (Some("chunked"), _) => Body::Chunked(Chunk::Size(0)),
            (None, Some(Ok(0))) => Body::Ended,
            (None, Some(Ok(length))) => Body::Length(length),
            (None, None) if self.endless => Body::Endless,
            _ => return Err("an answer that ends by close".into()),
        };
        // The value, as it was written.
        let value = |name: &str| {
            let at = head.find(&format!("\n{name}:"))? + name.len() + 2;
            let line = String::from_utf8_lossy(&self.head[at..end]);
            Some(line.lines().next()?.trim().to_owned())
        };
        self.next_offset = value("stream-next-offset");
        self.up_to_date = value("stream-up-to-date").is_some();
        self.head = Vec::new();
        Ok(&bytes[end + 4 - before..])
    }
}

impl Chunk {
    /// The next piece: whether the body is over, payload, what follows.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<(bool, &'b [u8], &'b [u8]), String> {
        let (byte, rest) = (bytes[0], &bytes[1..]);
        match *self {
            Chunk::Size(size) => {
                *self = match (byte, (byte as char).to_digit(16)) {
                    (_, Some(digit)) => Chunk::Size(size << 4 | digit as usize),
                    (b'\r', _) => Chunk::Size(size),
                    (b'\n', _) if size == 0 => Chunk::Trailer(0),
                    (b'\n', _) => Chunk::Data(size),
                    _ => return Err(format!("{byte:#x} within a chunk's size")),
                };
                Ok((false, &[], rest))
            }
            Chunk::Data(missing) => {
                let (piece, rest) = bytes.split_at(bytes.len().min(missing));
                *self =
                    if piece.len() == missing { Chunk::End(2) } else { Chunk::Data(missing - piece.len()) };
                Ok((false, piece, rest))
            }
            Chunk::End(missing) => {
                if byte != b"\n\r"[missing - 1] {
                    return Err(format!("{byte:#x} behind a chunk"));
                }
                *self = if missing == 1 { Chunk::Size(0) } else { Chunk::End(1) };
                Ok((false, &[], rest))
            }
            Chunk::Trailer(length) => {
                *self = Chunk::Trailer(if byte == b'\n' { 0 } else { length + usize::from(byte != b'\r') });
                Ok((byte == b'\n' && length == 0, &[], rest))
            }
        }
    }
}
