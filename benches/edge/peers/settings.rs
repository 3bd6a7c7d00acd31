//! nginx', HAProxy's and nchan's configurations: what their manuals say a streaming proxy needs, and nothing that only costs.

use std::net::SocketAddr;
use std::path::Path;

use super::super::scenes::Certificate;

/// One worker (which closes waiting connections when fewer than a sixteenth of its places are free), responses and requests passed on as they come, upstream connections kept, an access log written in batches.
pub fn nginx(addr: SocketAddr, upstream: SocketAddr, tls: Option<&Certificate>, folder: &Path) -> String {
    let at = folder.display();
    let (ssl, certificate) = match tls {
        Some(files) => (
            " ssl",
            format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                files.chain.display(),
                files.key.display()
            ),
        ),
        None => ("", String::new()),
    };
    format!(
        "daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;
pid {at}/nginx.pid; error_log {at}/error.log;
events {{ worker_connections 20500; }}
http {{
  access_log {at}/access.log combined buffer=64k flush=1s;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
  tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000;
  upstream api {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen {addr}{ssl} backlog=4096; {certificate}
    client_max_body_size 64m;
    location / {{
      proxy_pass http://api; proxy_http_version 1.1;
      proxy_set_header Connection \"\"; proxy_set_header Host $host;
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s; proxy_send_timeout 600s;
    }}
  }}
}}
"
    )
}

/// One worker, and of each stream as many messages as a reader may be behind; they live in memory.
pub fn nchan(addr: SocketAddr, module: &str, folder: &Path) -> String {
    let at = folder.display();
    format!(
        "load_module {module};
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;
pid {at}/nginx.pid; error_log {at}/error.log;
events {{ worker_connections 20500; }}
http {{
  access_log {at}/access.log combined buffer=64k flush=1s;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
  tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000;
  nchan_shared_memory_size 256m; nchan_message_buffer_length 1024;
  server {{
    listen {addr} backlog=4096;
    location ~ ^/publish/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
    location ~ ^/follow/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1;
      nchan_subscriber_first_message newest; }}
  }}
}}
"
    )
}

/// One thread, no delaying of what is not full, upstream connections shared, an access log.
pub fn haproxy(addr: SocketAddr, upstream: SocketAddr, tls: Option<&Certificate>) -> String {
    let ssl = match tls {
        // HAProxy finds the key beside the chain, by its name.
        Some(files) => format!(" ssl crt {}", files.chain.display()),
        None => String::new(),
    };
    format!(
        "global
  nbthread 1
  maxconn 9900
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 300s
frontend edge
  bind {addr}{ssl} backlog 4096
  default_backend api
backend api
  server api {upstream} pool-max-conn -1
"
    )
}
