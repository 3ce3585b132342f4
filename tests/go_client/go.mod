module smrx.example/client

go 1.19
