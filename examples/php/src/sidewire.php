<?php
declare(strict_types=1);

/** Where pages reach Sidewire's client listener. */
function sidewire_url(): string
{
    return getenv('SIDEWIRE_CLIENT_URL') ?: 'http://localhost:7080';
}

/** Tells Sidewire something. False: it is away, or said no. The page must not fail because of that. */
function sidewire(string $path, array $body): bool
{
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => 'Content-Type: application/json',
        'content' => json_encode($body, JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE),
        'timeout' => 1,
    ]]);
    $app = getenv('SIDEWIRE_APP_URL') ?: 'http://127.0.0.1:7070';
    return @file_get_contents($app . $path, false, $context) !== false;
}
