import { finding } from "./finding.ts";

const OTHER_PORT = "Use port 587, or 465 for TLS from the start.";

/** What a test of an SMTP server can find, beyond the connection itself. */
export const SMTP_FINDINGS = {
  not_an_smtp_server: finding("protocol", "What answers on this port does not speak SMTP.", "Check that host and port lead to a server for sending mail; its usual port is 587."),
  smtp_greeting_closed: finding("connect", "The mail server closed the connection before its greeting.", `Check that the server allows our addresses. ${OTHER_PORT}`),
  smtp_greeting_timed_out: finding("timeout", "The mail server took the connection but sent no greeting in time.", `Check that the port is right. ${OTHER_PORT}`),
  smtp_greeting_refused: finding("connect", "The mail server greets with a refusal.", "Ask the server's operator to allow our addresses to send mail."),
  smtp_service_unavailable: finding("connect", "The mail server is not available at the moment.", "Try again in a few minutes; the server said that it is closing the connection."),
  smtp_hello_refused: finding("protocol", "The mail server does not answer EHLO, which everything else builds on.", "Check that host and port lead to a server for message submission."),
  smtp_hello_closed: finding("connect", "The mail server closed the connection before the login.", "Ask the server's operator what its log says about our connection."),
  smtp_hello_timed_out: finding("timeout", "The mail server greeted, but then did not answer in time.", "Check that the mail server is not overloaded, then try again."),
  smtp_starttls_missing: finding("tls", "The mail server does not offer STARTTLS on this port, so no password was sent.", `${OTHER_PORT} If that is refused too, ask for TLS.`),
  smtp_starttls_refused: finding("tls", "The mail server offers STARTTLS but cannot begin it.", "Ask the server's operator to look at its certificate and TLS settings."),
  smtp_starttls_injected: finding("tls", "Text was sent in front of the encryption, as an attacker in between would do.", "Check what stands between here and the mail server; no password was sent."),
  smtp_tls_not_spoken: finding("tls", "The mail server does not speak TLS from the start on this port.", "Use port 587, which begins TLS with STARTTLS, or the server's own port for implicit TLS."),
  smtp_certificate_not_trusted: finding("tls", "The mail server's certificate is not signed by an authority that is trusted here.", "Check the host name; a server for sending mail needs a certificate of a public authority."),
  smtp_tls_handshake_closed: finding("tls", "The mail server closed the connection while encryption was set up.", "Ask the mail server's operator what its log says about our connection."),
  smtp_tls_handshake_timed_out: finding("timeout", "The mail server did not finish the TLS handshake in time.", `Check that no proxy inspects TLS. ${OTHER_PORT}`),
  smtp_auth_not_offered: finding("auth", "The mail server offers no login on this port.", "Use the port of message submission, 587 or 465, rather than 25."),
  smtp_auth_method_unsupported: finding("auth", "The mail server offers only logins that need more than a password.", "Ask the server's operator to allow AUTH PLAIN or AUTH LOGIN over TLS."),
  smtp_login_malformed: finding("auth", "User name or password are too long for SMTP, or hold a NUL character.", "Check that the fields hold the user name and password alone."),
  smtp_login_refused: finding("auth", "The mail server refused this user name and password.", "Check both, that they were made for SMTP and, at Amazon SES, that they were made for this region."),
  smtp_password_is_access_key: finding(
    "auth",
    "The mail server refused the login, and the password looks like an AWS secret access key.",
    "Amazon SES has passwords of its own for SMTP: make one in the SES console under SMTP settings.",
  ),
  smtp_login_throttled: finding("auth", "The mail server takes no login at the moment.", "Wait a few minutes and try again; too many logins in a row cause this too."),
  smtp_login_closed: finding("auth", "The mail server closed the connection during the login.", "Check user name and password, and ask the server's operator what its log says."),
  smtp_login_timed_out: finding("timeout", "The mail server did not answer the login in time.", "Check that the server's user directory is not overloaded, then try again."),
  smtp_server_error: finding("protocol", "The mail server answered with an error that is not known here.", "Ask the mail server's operator what its log says at this time."),
  smtp_protocol_broken: finding("protocol", "The mail server broke the rules of SMTP.", "Check that no proxy changes the data, and that the port is a mail server's."),
};
