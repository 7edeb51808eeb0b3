<?php
declare(strict_types=1);

/** How long somebody stays signed in, in seconds. */
function session_seconds(): int
{
    return (int) (getenv('SESSION_SECONDS') ?: 8 * 3600);
}

function open_session(bool $read_only = false): void
{
    session_start([
        // An id that this app has not made is not taken.
        'use_strict_mode' => true,
        'cookie_httponly' => true,
        'cookie_samesite' => 'Lax',
        // Off only where there is no TLS: on the developer's own machine.
        'cookie_secure' => getenv('APP_ENV') !== 'development',
        'gc_maxlifetime' => session_seconds(),
        'read_and_close' => $read_only,
    ]);
}

/** Who is signed in, or null. */
function current_user(): ?string
{
    return seconds_left() > 0 ? $_SESSION['user'] : null;
}

function seconds_left(): int
{
    return max(0, ($_SESSION['until'] ?? 0) - time());
}

function sign_in(string $user): void
{
    // What somebody else may know of the session of before is worth nothing now.
    session_regenerate_id(true);
    $_SESSION = ['user' => $user, 'until' => time() + session_seconds()];
}

function sign_out(): void
{
    $_SESSION = [];
    $cookie = session_get_cookie_params();
    unset($cookie['lifetime']);
    setcookie(session_name(), '', ['expires' => 1] + $cookie);
    session_destroy();
}

/** Belongs into every form, so that a page of another site cannot send it. */
function form_token(): string
{
    return $_SESSION['form_token'] ??= bin2hex(random_bytes(32));
}

/** Ends the request unless it is a form of this app's own page. */
function require_own_form(): void
{
    $given = $_POST['form_token'] ?? '';
    if ($_SERVER['REQUEST_METHOD'] !== 'POST' || !is_string($given) || !hash_equals(form_token(), $given)) {
        refuse(403, 'This form is not from this app, or too old. Load the page again.');
    }
}

/** What was typed into a field of the form. */
function field(string $name): string
{
    $given = $_POST[$name] ?? '';
    return is_string($given) ? trim($given) : '';
}

function refuse(int $status, string $why): never
{
    http_response_code($status);
    header('Content-Type: text/plain; charset=utf-8');
    exit($why . "\n");
}

function go_home(): never
{
    header('Location: /', true, 303);
    exit;
}

/** Text as it stands on a page. */
function escape(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE | ENT_HTML5, 'UTF-8');
}
