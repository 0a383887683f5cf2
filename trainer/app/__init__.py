"""A page on this machine: drop a song, hear and see its genres: `./launch.sh app`.

listen    a song to what the page shows
similar   the training set's clips that sound most like it
server    who is answered, and how much is taken
web/      the page
"""
