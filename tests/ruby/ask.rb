# Two requests by Ruby's Net::HTTP on one connection. Arguments: URL, API key.

require "net/http"

url, key = ARGV
uri = URI(url)
Net::HTTP.start(uri.host, uri.port, use_ssl: true) do |http|
  2.times do
    answer = http.get(uri.request_uri, "Authorization" => "Bearer #{key}")
    answer.value # raises where it is no success
    puts answer.body
  end
end
