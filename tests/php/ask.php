<?php
// Two requests by PHP's curl on one connection. Arguments: URL, API key.

[, $url, $key] = $argv;
$curl = curl_init($url);
curl_setopt_array($curl, [
    CURLOPT_HTTPHEADER => ["Authorization: Bearer $key"],
    CURLOPT_RETURNTRANSFER => true,
]);
for ($n = 0; $n < 2; $n++) {
    $answer = curl_exec($curl);
    if ($answer === false) {
        fwrite(STDERR, curl_error($curl) . "\n");
        exit(1);
    }
    echo $answer;
}
