//! What a publish would cost if there were nothing to do: hyper reads each request and answers it with as many
//! bytes as Sidewire would. One thread, keep-alive, no routing, no parsing, no log.
//!   bare_hyper --port P | --unix PATH
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, UnixListener};

/// The same length as the answer to one publish.
const ANSWER: &[u8] =
    br#"{"id":"01980000-0000-7000-8000-000000000000","channel":"bench","status":"published","cursor":"AAAAAAAAAAAAAAAAAAAAAAA"}"#;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // The body is read as a publish is read: whole.
    let _ = request.into_body().collect().await;
    let response = Response::builder().header("content-type", "application/json").body(Full::new(Bytes::from_static(ANSWER)));
    Ok(response.expect("the parts are constant"))
}

fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
    tokio::task::spawn_local(async move {
        // A client that hangs up is none of our business.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let get = |key: &str| arguments.iter().position(|word| word == key).and_then(|at| arguments.get(at + 1));
    tokio::task::LocalSet::new()
        .run_until(async {
            if let Some(path) = get("--unix") {
                let listener = UnixListener::bind(path).expect("bind");
                while let Ok((stream, _)) = listener.accept().await {
                    serve(stream);
                }
            }
            let port: u16 = get("--port").expect("--port or --unix").parse().expect("a port");
            let socket = TcpSocket::new_v4().expect("socket");
            socket.set_reuseaddr(true).expect("reuse");
            socket.bind(([127, 0, 0, 1], port).into()).expect("bind");
            let listener = socket.listen(4096).expect("listen");
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("nodelay");
                serve(stream);
            }
        })
        .await;
}
