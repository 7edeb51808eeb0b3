<?php
declare(strict_types=1);
require __DIR__ . '/../src/session.php';

// Sidewire asks here, with the cookie of the browser that connects to it. Whoever else asks learns about their own
// session alone. It is only read: were it locked, as sessions are, a page that is under way would hold up the answer.
header('Cache-Control: no-store');
$user = null;
if (isset($_COOKIE[session_name()])) {
    open_session(read_only: true);
    $user = current_user();
}
if ($user === null) {
    refuse(401, 'Nobody is signed in.');
}
header('Content-Type: application/json');
echo json_encode([
    'user' => $user,
    'channels' => ['user.{sub}.>' => ['sub', 'history']],
    'expires_in' => seconds_left(),
], JSON_THROW_ON_ERROR);
