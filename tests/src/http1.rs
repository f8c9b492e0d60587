//! Reading HTTP/1.1 from a raw socket, as a careful client does.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const LONGEST_HEAD: usize = 64 * 1024;

/// A response read from a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Such as 403.
    pub status: u16,
    /// What follows it on the first line.
    pub reason: String,
    /// Fields in order, names lower-case.
    pub headers: Vec<(String, String)>,
    /// The body, decoded from its framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Reads a head with its empty line and not a byte more.
///
/// # Errors
/// When the stream ends or breaks before, or the head has no end.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == LONGEST_HEAD {
            return Err(io::Error::other("a head without an end"));
        }
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// Reads a response to a request that was not HEAD.
///
/// # Errors
/// When the stream breaks, or holds something else.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    let mut answer = parse_head(&read_head(stream).await?)?;
    if answer.status / 100 == 1 || answer.status == 204 || answer.status == 304 {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = read_chunks(stream).await?;
    } else if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().map_err(io::Error::other)?];
        stream.read_exact(&mut answer.body).await?;
    } else {
        stream.read_to_end(&mut answer.body).await?;
    }
    Ok(answer)
}

/// Reads the head of a response and leaves what follows alone: for CONNECT, and for upgrades.
///
/// # Errors
/// When the stream breaks, or holds something else.
pub async fn read_answer_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    parse_head(&read_head(stream).await?)
}

fn parse_head(head: &str) -> io::Result<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Response::new(&mut fields);
    parsed.parse(head.as_bytes()).map_err(io::Error::other)?;
    let headers = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned()));
    Ok(Answer {
        status: parsed.code.unwrap_or_default(),
        reason: parsed.reason.unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: Vec::new(),
    })
}

async fn read_chunks(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream).await?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        if size == 0 {
            while !read_line(stream).await?.is_empty() {}
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).await?;
        read_line(stream).await?;
    }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await?);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_read_in_every_framing_and_no_further() {
        let mut stream: &[u8] =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n\
              HTTP/1.1 403 host_not_allowed\r\nContent-Length: 2\r\n\r\nno\
              HTTP/1.1 204 No Content\r\n\r\n\
              HTTP/1.1 200 OK\r\n\r\nto the end";

        let mut read = Vec::new();
        for _ in 0..4 {
            let answer = read_answer(&mut stream).await.unwrap();
            read.push((answer.status, answer.reason, String::from_utf8(answer.body).unwrap()));
        }

        let expected = [
            (200, "OK", "abc"),
            (403, "host_not_allowed", "no"),
            (204, "No Content", ""),
            (200, "OK", "to the end"),
        ];
        assert_eq!(read, expected.map(|(status, reason, body)| (status, reason.to_owned(), body.to_owned())));
    }
}
